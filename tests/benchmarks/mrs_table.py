"""The table behind `mrs_prune`: compression, ratio, criterion and fine-tuning, from one adversarially trained network.

Usage: python tests/benchmarks/mrs_table.py OUT [--arch test_resnet] [--data digits] [--data-dir D] [--epochs 6]
       [--finetune-epochs 3] [--finetune-batches B] [--lr 0.05] [--finetune-lr 0.02] [--n 360] [--adversary pgd]
       [--steps 5] [--images 256] [--compressions 0.5 0.75 0.9]
       [--criteria l2 batchnorm taylor lamp random] [--seeds 0] [--weights RUN]

Trains a dense network against an adversary, from the weights of RUN if one is given, prunes it in every way and
fine-tunes it likewise, with everything or with normalisation and biases only. Prints accuracy, clean and under PGD-20,
and draws the sensitivity of each group of channels. Finished runs in OUT are not trained again.
"""

import argparse
import json
import statistics
from itertools import product
from pathlib import Path

import torch
from matplotlib.figure import Figure

from zoo.adversaries import ADVERSARIES
from zoo.attacks.pgd import PGD
from zoo.channels.criteria import CRITERIA
from zoo.methods import METHODS, Method
from zoo.publishing.measure import EvaluationSplit
from zoo.runs.config import TrainConfig
from zoo.runs.provenance import hardware
from zoo.runs.run import CARD, Run
from zoo.training.trainer import train

FEWEST = 10
"""Test images of the evaluation at the end of each training, which is not used."""


def trained(options: argparse.Namespace, folder: Path, method: Method, **changes) -> Run:
    """Return the run in a folder, trained against the adversary if it is not there yet."""
    if (folder / CARD).is_file():
        return Run(folder)
    config = TrainConfig(
        arch=options.arch,
        data=options.data,
        data_dir=options.data_dir,
        n=FEWEST,
        steps=options.steps,
        val_fraction=0.05,
        out=folder,
        **changes,
    )
    return train(config, method, ADVERSARIES.get(options.adversary)(), overwrite=True)


def accuracies(runs: list[Run], options: argparse.Namespace) -> str:
    """Return clean and PGD-20 accuracy, in percent, the mean over the seeds."""
    found = [measured(run, options) for run in runs]
    cells = []
    for values in zip(*found, strict=True):
        spread = f"±{100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{100 * statistics.mean(values):.1f}{spread}")
    return "/".join(cells)


def measured(run: Run, options: argparse.Namespace) -> list[float]:
    """Return clean and PGD-20 accuracy at the radius of the training, measured once."""
    path = run.folder / "table.json"
    if not path.is_file():
        card, model = run.card, run.model()
        split = EvaluationSplit.of(card, options.data_dir).first(options.n)
        eps = TrainConfig().threat.eps
        passed = PGD(steps=20)(model, split.images.float() / 255, split.labels, [0.0, eps]).robust
        path.write_text(json.dumps(passed.float().mean(1).tolist()))
    return list(json.loads(path.read_text()))


def draw(sensitivities: dict[str, float], path: Path) -> None:
    """Draw how much robustness hangs on each group of channels."""
    figure = Figure(figsize=(7, 0.3 * len(sensitivities) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(list(sensitivities), list(sensitivities.values()), color="#4477aa")
    axes.invert_yaxis()
    axes.set_xlabel("growth of the adversarial cross-entropy at the worst 10 % change of the weights")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train, prune, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arch", default="test_resnet")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--finetune-epochs", type=int, default=3)
    parser.add_argument("--finetune-batches", type=int, help="of each epoch of fine-tuning; default: all")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--finetune-lr", type=float, default=0.02)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--n", type=int, default=360)
    parser.add_argument("--adversary", choices=ADVERSARIES.names(), default="pgd")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--images", type=int, default=256, help="validation images that sensitivities are measured on")
    parser.add_argument("--compressions", type=float, nargs="+", default=[0.5, 0.75, 0.9])
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA.names(), default=CRITERIA.names())
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    mrs, dense = METHODS.get("mrs_prune"), {}
    few = {} if options.finetune_batches is None else {"limit_train_batches": options.finetune_batches}
    for seed in options.seeds:
        at = {"epochs": options.epochs, "lr": options.lr, "seed": seed, "weights": options.weights}
        dense[seed] = trained(options, options.out / f"dense-{seed}", METHODS.get("dense")(), **at)
    rows: dict[tuple[str, str, str], list[str]] = {}
    for compression, ratio, criterion, finetune in product(
        options.compressions, ("uniform", "adaptive"), options.criteria, ("norms", "full")
    ):
        # Gradients are gathered over a few steps before the cut; a share too small for one step cuts at the first.
        method = mrs(criterion=criterion, ratio=ratio, finetune=finetune, begin=0.1, images=options.images)
        runs = []
        for seed in options.seeds:
            folder = options.out / f"{compression}-{ratio}-{criterion}-{finetune}-{seed}"
            changes = {"epochs": options.finetune_epochs, "lr": options.finetune_lr, "seed": seed, "trainer": few}
            weights = options.out / f"dense-{seed}"
            runs.append(trained(options, folder, method, weights=weights, compression=compression, **changes))
        rows.setdefault((finetune, ratio, criterion), []).append(accuracies(runs, options))
        if ratio == "adaptive":
            draw(runs[0].card.training["cuts"][0]["sensitivity"], options.out / "sensitivity.png")
    print(
        f"\n{options.arch} on {options.data}, clean/PGD-20 accuracy on n {options.n}, {hardware(torch.device('cpu'))}"
    )
    print(f"dense: {accuracies(list(dense.values()), options)}\n")
    print("| fine-tuning | ratio | criterion | " + " | ".join(f"{c:.0%}" for c in options.compressions) + " |")
    print("|---|---|---|" + "---|" * len(options.compressions))
    for (finetune, ratio, criterion), cells in sorted(rows.items()):
        print(f"| {finetune} | {ratio} | {criterion} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
