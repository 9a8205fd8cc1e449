"""Compare AutoAttack with the reference implementation: same model, same images, same eps, one process.

Usage: python tests/benchmarks/autoattack.py RUN --reference DIR [--eps 8/255] [--norm Linf] [--n 1000] [--data-dir D]
       [--gradients fp32 bf16]

DIR is a clone of https://github.com/fra31/auto-attack. Prints robust accuracy by both and the ratio of their times: on
a CPU the processor's, which other work on the machine does not lengthen as it does those on the clock.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from zoo.attacks import fp32, parse_eps
from zoo.attacks.autoattack import AutoAttack
from zoo.backbone.folded import folded
from zoo.evaluation import Sweep, evaluate
from zoo.publishing.measure import EvaluationSplit
from zoo.runs.provenance import hardware
from zoo.runs.run import Run
from zoo.runtime.memory import keep_freed_memory


def reference_accuracy(
    folder: Path, model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, norm: str, eps: float
) -> float:
    """Return the robust accuracy that the reference implementation finds."""
    sys.path.insert(0, str(folder))
    from autoattack import AutoAttack as Reference  # type: ignore[import-not-found]

    attack = Reference(model, norm=norm, eps=eps, version="standard", device=x.device, verbose=True)
    adversarial = attack.run_standard_evaluation(x, y, bs=250)
    with torch.no_grad():
        right = torch.cat([model(a).argmax(1) == b for a, b in zip(adversarial.split(250), y.split(250), strict=True)])
    return right.double().mean().item()


def main() -> None:
    """Run both, ours first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--norm", default="Linf")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--gradients", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    run, eps = Run(options.run), parse_eps(options.eps)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = run.model().to(device)
    shape = run.card.image_shape
    split = EvaluationSplit.of(run.card, options.data_dir).first(options.n)
    images, labels = split.images, split.labels
    print(f"{run.name}, {options.norm} {options.eps}, n {len(images)}, {hardware(device)}, torch {torch.__version__}")
    sweep = Sweep(AutoAttack(norm=options.norm), (eps,))
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    figures: dict[str, tuple[float, float]] = {}
    for gradients in options.gradients:
        start = clock()
        clean, ours = evaluate(folded(model, shape), images, labels, [sweep], gradients=gradients)
        seconds = clock() - start
        figures[gradients] = ours.accuracy, seconds
        parts = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in ours.parts.items())
        print(f"zoo {gradients}   clean {clean.accuracy:.2%}, robust {ours.accuracy:.2%} ({parts}), {seconds:.0f} s")
        sys.stdout.flush()
    x, y = images.to(device).float().div(255), labels.to(device)
    keep_freed_memory(False)  # `evaluate` asked for it: the reference is timed as it comes
    start = clock()
    with fp32(device):
        theirs = reference_accuracy(options.reference, model, x, y, options.norm, eps)
    reference_seconds = clock() - start
    print(f"reference  robust {theirs:.2%}, {reference_seconds:.0f} s")
    for gradients, (accuracy, seconds) in figures.items():
        difference, ratio = 100 * abs(accuracy - theirs), reference_seconds / seconds
        print(f"zoo {gradients}   {difference:.2f} points apart, {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
