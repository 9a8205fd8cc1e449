#!/usr/bin/env bash
# The wheel in a clean environment, without a network: list, download, export and bench of a bundled model. 7 minutes.
#   WORK=DIR tests/acceptance/wheel.sh      needs uv (pip install uv) and, to cut the network off, unshare
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
source "$HERE/steps.sh"
M=resnet18.robust_lowrank90_at_c10

echo "== the wheel, in an environment of its own"
works uv build -q --wheel --out-dir dist "$HERE/../.."
WHEEL=$(ls dist/*.whl)
SIZE=$(stat -c %s "$WHEEL")
printf '%s MB\n' $((SIZE / 1000000))
((SIZE < 60000000)) || { echo "FAILED: the wheel is larger than 60 MB"; exit 1; }
works python3 -m venv venv
works uv pip install -q -p venv --compile-bytecode "$WHEEL"

# offline COMMAND...: as a user types it, in a network of its own that leads nowhere, in an empty folder.
mkdir -p empty
offline() {
    works -n 12 unshare -rn env -C empty -u PYTHONPATH ZOO_CACHE="$PWD/cache" HF_HUB_OFFLINE=0 "$@"
}
echo "== offline"
offline "$PWD/venv/bin/zoo" list
offline "$PWD/venv/bin/zoo" download "$M"
offline "$PWD/venv/bin/zoo" export "$M" --target generic -o model.onnx
offline "$PWD/venv/bin/zoo" bench "$M" --n 0 --rounds 5 --json bench.json
offline "$PWD/venv/bin/zoo" bench test_resnet.robust_lowrank50_digits --n 100 --rounds 5 --json digits.json
finished
