#!/usr/bin/env bash
# What attacks, evaluation and adversarial training promise, typed as a user would. About 16 minutes on two cores.
#   WORK=DIR tests/acceptance/attacks.sh      with zoo's environment active
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
source "$HERE/steps.sh"
M=test_resnet.robust_lowrank50_at_digits
TINY="--arch test_resnet --epochs 1 --n 60 --eps 0.1 --overwrite true"

echo "== attacks: model, images, labels, a list of eps; per-image outcomes"
works -n 30 python -c "
import zoo; from zoo.attacks import ATTACKS; from zoo.data import load_test
model = zoo.load('$M').eval()
images, labels = load_test('digits', data_dir=None, download=False, image_shape=(1, 8, 8), class_names='0123456789', n=40)
images = images / 255
for name in ATTACKS.names():
    for norm in sorted({'Linf', 'L2'} & set(ATTACKS.get(name).norms)):
        found = ATTACKS.get(name)(norm=norm)(model, images, labels, [0.0, 0.05, 0.1])
        print(f'{name:11}{norm:5}', found.robust.float().mean(1).tolist(), tuple(found.adversarial.shape))"

echo "== evaluation: tiers, what is kept, what resumes"
rm -rf runs
works -n 40 zoo evaluate $M --attacks quick --n 100
works -n 16 zoo evaluate $M --attacks standard --eps 0.1 --n 100
works -n 30 zoo evaluate $M --attacks full --eps 0.1 --n 20
works -n 8 python -c "
import numpy as np
kept = np.load('runs/$M/outcomes.npz')
for name in list(kept)[:6]: print(name, kept[name].shape, kept[name].dtype)"
works -n 3 zoo train $TINY --method robust_lowrank --adversary fgsm_rs --out killed
cp -r killed whole
works -n 6 zoo evaluate whole --attacks standard --eps 0.1 --n 300
(timeout -s KILL 25 zoo evaluate killed --attacks standard --eps 0.1 --n 300 >killed.log 2>&1)
works -n 6 zoo evaluate killed --attacks standard --eps 0.1 --n 300
works -n 2 python -c "
from pathlib import Path; from zoo.runs.run import Run
a, b = ([(e.attack, e.eps, e.accuracy, e.parts) for e in Run(Path(name)).card.evaluations] for name in ('whole', 'killed'))
assert a == b, (a, b)
print('killed and resumed: the same', len(a), 'figures')"

echo "== more than images"
works -n 60 zoo evaluate $M --attacks fgsm --eps 0.1 --probes all --n 40

echo "== adversarial training, for every method"
for adversary in none fgsm_rs "pgd --steps 3" "trades --steps 3" "mart --steps 3" "score --steps 3"; do
    works -n 1 zoo train $TINY --method robust_lowrank --adversary $adversary --awp 0.005 --ema 0.9 --label-smoothing 0.1 --out a
    works -n 1 python -c "
from pathlib import Path; from zoo.runs.run import Run
card = Run(Path('a')).card
print('$adversary: largest condition number', card.max_condition_number)"
done
for method in dense lowrank rank_adaptive robust_rank_adaptive mrs_prune hydra csam magnitude_prune; do
    works -n 1 zoo train $TINY --method $method --adversary pgd --steps 3 --awp 0.005 --ema 0.9 --label-smoothing 0.1 --out m
done
works -n 1 zoo train $TINY --method robust_lowrank --method.convolution tucker --adversary trades --steps 3 --awp 0.005 --out t
works -n 1 zoo train $TINY --method robust_lowrank --adversary pgd --steps 3 --compile true --out c

echo "== bad input"
refused "8/255" zoo train --arch test_resnet --method dense --adversary pgd --eps 8 --out bad
refused "8/255" zoo evaluate $M --eps 8
refused "eps" zoo evaluate $M --eps=-0.1
refused "eps|number" zoo evaluate $M --eps eight
refused "did you mean" zoo evaluate $M --attacks apgdd
refused "norm" zoo evaluate $M --norms L3
refused "steps" zoo train --arch test_resnet --adversary pgd --steps 0 --out bad
refused "awp" zoo train --arch test_resnet --adversary pgd --awp=-1 --out bad
refused "did you mean" zoo train --arch test_resnet --adversary pdg --out bad
refused "ema" zoo train --arch test_resnet --ema 1.5 --out bad
P="import torch; from torch import nn; from zoo.attacks import ATTACKS; x = torch.rand(4, 1, 8, 8); y = torch.zeros(4, dtype=torch.long)"
L="nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()"
python_refuses "8/255" "$P; ATTACKS.get('pgd')()($L, x, y, [8])"
python_refuses "label" "$P; ATTACKS.get('pgd')()($L, x, y + 7, [0.1])"
python_refuses "NaN|nan" "$P; m = $L; m[1].bias.data[0] = float('nan'); ATTACKS.get('pgd')()(m, x, y, [0.1])"
python_refuses "classes" "$P; ATTACKS.get('apgd')(loss='dlr')(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval(), x, y, [0.1])"
python_refuses "classes" "$P; ATTACKS.get('apgd_t')()(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval(), x, y, [0.1])"
python_refuses "training mode" "$P; ATTACKS.get('pgd')()($L.train(), x, y, [0.1])"
python_refuses "\[0, 1\]" "$P; ATTACKS.get('pgd')()($L, 255 * x, y, [0.1])"
finished
