#!/usr/bin/env bash
# What the hub promises, typed as a user would. 15 minutes, most of them waiting; with CIFAR10 given, 20 more to verify all models.
#   WORK=DIR [CIFAR10=DIR] tests/acceptance/hub.sh      with zoo's environment active
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
source "$HERE/steps.sh"
M=test_resnet.robust_lowrank50_digits
export ZOO_CACHE=$WORK/cache

echo "== names, filters, cards"
works -n 30 zoo list
works zoo list '*.robust_lowrank*' --data cifar10 --max-params 3M --sort latency
works -n 12 zoo list --data digits --min-robust 0.4 --json true
COLUMNS=80 works -n 9 zoo list --models
works -n 40 python -c "
import json, zoo
from pathlib import Path
from zoo.runs.card import Card
folder = Path(zoo.__file__).parent / 'hub/bundled/$M'
card = Card.load(folder / 'card.json')
print(*sorted(type(card).model_fields))
print(card.provenance.command, card.provenance.commit, card.licence, card.schema_version)
print((folder / 'README.md').read_text()[:600])"

echo "== Python"
works -n 8 python -c "
import sys, torch, zoo
print(zoo.list_models('*', data='digits', sort='robust'))
model = zoo.create_model('$M', pretrained=True)
assert isinstance(model, torch.nn.Module) and not any('lightning' in name for name in sys.modules)
print(tuple(model(torch.rand(2, 1, 8, 8)).shape), tuple(zoo.create_model('$M', num_classes=3)(torch.rand(2, 1, 8, 8)).shape))
print(type(zoo.load('$M')).__name__, sum(p.numel() for p in model.parameters()))"
python -c "
import sys; sys.path.insert(0, '$HERE/..')
from pathlib import Path
from image_tree import image_tree
image_tree(Path('tree'), ('train', 'test'))
for file in Path('tree').rglob('*.png'):  # enough for a validation split
    for i in range(9): (file.parent / f'{file.stem}_{i}.png').write_bytes(file.read_bytes())"
works zoo train --init resnet18.robust_lowrank80_fast_c10 --data imagefolder --data-dir tree --image-size 32 --epochs 1 --n 20 --batch-size 16 --out tuned --overwrite true
works python -c "
from zoo.runs.run import Run; from pathlib import Path; from zoo.hub.runs import read_run
a, b = Run(Path('tuned')).card, read_run('resnet18.robust_lowrank80_fast_c10').card
print(sum(a.ranks[k] == b.ranks[k] for k in b.ranks), 'of', len(b.ranks), 'ranks kept;', a.class_names)"

echo "== hubs"
works zoo train --arch test_resnet --method lowrank --compression 0.5 --epochs 2 --n 100 --out run --overwrite true
rm -rf hub two; works zoo publish run --hub hub --tag first
works zoo publish run --hub "file://$WORK/two" --tag second
works -n 6 zoo list --models --hub "hub,file://$WORK/two"
refused "is taken|already|exists" zoo publish run --hub hub --tag first
(zoo publish run --hub hub --tag a --latency false >a.log 2>&1 & zoo publish run --hub hub --tag b --latency false >b.log 2>&1 & wait)
works -n 5 ls hub
python -m http.server 8899 --bind 127.0.0.1 --directory hub >/dev/null 2>&1 &
trap "kill $!" EXIT
sleep 1
works zoo download test_resnet.first --hub http://127.0.0.1:8899
works zoo download test_resnet.first --hub http://127.0.0.1:8899
works zoo download test_resnet.first --hub http://127.0.0.1:8899 --to there
ZOO_HUB=http://127.0.0.1:8899 works -n 2 zoo verify test_resnet.first
works zoo download $M --to there
works zoo export $M
works -n 12 zoo bench $M

echo "== leaderboard"
works zoo leaderboard --hub hub --out board/index.html --robustbench board/rb
works -n 12 ls board

echo "== bad input"
refused "did you mean" zoo download resnet18.robust_lowrank75_c1
refused "no model|matches|none" zoo list 'nothing*' --models
refused "unknown model" zoo download ../../etc
refused "file://|ftp|address|scheme" zoo list --hub ftp://127.0.0.1/x
refused "127.0.0.1:1" zoo list --hub http://127.0.0.1:1
refused "hugging|hf://|reach" zoo download a.b --hub hf://nobody/nothing
for index in '{' '[]' '{"models": {"../../etc": {}}}' '{"version": 999, "models": {}}'; do
    rm -rf bad; mkdir bad; echo "$index" >bad/index.json
    refused "index" zoo list --hub bad
done
python - <<'PYTHON'
from pathlib import Path
from zoo.hub.index import LARGEST_INDEX
Path("bad/index.json").write_bytes(b" " * (LARGEST_INDEX + 1))
PYTHON
refused "index" zoo list --hub bad
works python -c "
import json; from pathlib import Path
card = json.loads(Path('hub/test_resnet.first/card.json').read_text()); card['schema_version'] = 999
Path('newer').mkdir(exist_ok=True); Path('newer/card.json').write_text(json.dumps(card))"
refused "schema 999" zoo evaluate newer

echo "== a server that misbehaves"
python "$HERE/faulty_hub.py" hub 8898 &
trap 'kill $(jobs -p)' EXIT
sleep 3
for fault in truncated corrupted html html_as_200 500 503 wrong_length grown shrunk drip redirect_to_file redirect_loop 404; do
    rm -rf "$ZOO_CACHE/models"
    refused "." zoo download test_resnet.first --hub "http://127.0.0.1:8898/$fault"
    [[ -z $(find "$ZOO_CACHE" -name '*.safetensors' -o -name '*.part') ]] || { echo "FAILED: a wrong file is left"; exit 1; }
done
for fault in stall no_ranges wrong_range none; do  # nothing to resume: a wrong range is none
    rm -rf "$ZOO_CACHE/models"
    works -n 1 zoo download test_resnet.first --hub "http://127.0.0.1:8898/$fault"
    cmp "$(find "$ZOO_CACHE" -name model.safetensors)" hub/test_resnet.first/model.safetensors || exit 1
done
for fault in index-html_as_200 index-500 index-truncated index-redirect_to_file; do
    refused "." zoo list --hub "http://127.0.0.1:8898/$fault"
done

echo "== a full disk, a cache that cannot be written, two processes at once"
rm -rf "$ZOO_CACHE/models"
refused "space|disk|large|write" bash -c "ulimit -f 100; zoo download test_resnet.first --hub http://127.0.0.1:8898/none"
zoo download test_resnet.first --hub http://127.0.0.1:8899 >a.log 2>&1 & first=$!
zoo download test_resnet.first --hub http://127.0.0.1:8899 >b.log 2>&1 & second=$!
wait $first && wait $second || { cat a.log b.log; echo "FAILED: two at once"; exit 1; }
works -n 4 cat a.log b.log
ZOO_CACHE=/proc/zoo refused "ZOO_CACHE|cache|write" zoo download test_resnet.first --hub http://127.0.0.1:8899

[[ -z ${CIFAR10:-} ]] || works -n 3 zoo verify --all true --data-dir "$CIFAR10"
finished
