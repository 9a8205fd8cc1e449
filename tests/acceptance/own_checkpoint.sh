#!/usr/bin/env bash
# The commands of docs/own_checkpoint.md as they stand there, and checkpoints that must be refused. 5 minutes on an idle machine.
#   WORK=DIR tests/acceptance/own_checkpoint.sh      with zoo's environment first on the path; ZOO_DATA_DIR for CIFAR-10, if at hand
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
source "$HERE/steps.sh"
PAGE=$HERE/../../docs/own_checkpoint.md

# blocks LANGUAGE: the code blocks of the page in it.
blocks() {
    sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" "$PAGE" | grep -v '^```'
}

echo "== the page"
rm -rf small trained
blocks python >own.py
works python own.py
while IFS= read -r line; do
    read -ra words <<<"$line"
    works -n 6 "${words[@]}"
done < <(blocks bash)
refused "cannot be fetched" zoo train --arch resnet18 --pretrained true --stem original --data digits --out no
refused "does not fit resnet34.*missing.*it is a resnet18: give that architecture" zoo train --arch resnet34 --weights own.pth --data digits --out no
if [[ -n ${ZOO_DATA_DIR:-} ]]; then
    works -n 6 zoo compress resnet18 --weights own.pth --stem original --compression 0.5 --data cifar10 --data-dir "$ZOO_DATA_DIR" --n 100 --out measured --overwrite true
fi

echo "== refused"
head -c 1000000 own.pth >cut.pth
echo "not found" >text.pth
: >empty.pth
mkdir -p nothing
python -c "
import os, torch
class Runs:
    def __reduce__(self): return os.mkdir, ('ran',)
torch.save({'state_dict': Runs()}, 'code.pth')"
for case in "cut:is cut, damaged" "text:is a text file" "empty:is empty" "code:which zoo never runs"; do
    refused "${case#*:}" zoo compress resnet18 --weights "${case%%:*}.pth" --compression 0.5 --out no
done
refused "has no weights" zoo compress resnet18 --weights nothing --compression 0.5 --out no
refused "impossible here" zoo compress resnet18 --weights own.pth --compression 0.9999 --image-size 96 --out no
[[ ! -e no && ! -e ran ]] || { echo "FAILED: something was left behind, or run"; exit 1; }
finished
