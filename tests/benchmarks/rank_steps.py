"""Step time against MACs over a run whose ranks fall: what each cut of RankPruning saves.

Usage: python tests/benchmarks/rank_steps.py --data-dir DIR [--archs vgg16_bn,resnet18] [--steps 180] [--plot OUT.png]

Trains `robust_lowrank` with adaptive ranks on CIFAR-10 in bf16. Between two cuts the median of the steps is taken;
MACs are those of the network that would be deployed at that moment. Both are relative to the time before the first cut.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure

from zoo.adversaries.none import NoAdversary
from zoo.backbone import create_backbone, with_normalization
from zoo.callbacks import RankPruning
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.post_training.none import NoFinisher
from zoo.regularizers.none import NoRegularizer
from zoo.runs.config import TrainConfig
from zoo.runtime.complexity import count_macs
from zoo.runtime.memory import keep_freed_memory
from zoo.training.build import open_config_data, starting_model
from zoo.training.module import Classifier
from zoo.training.parts import Parts
from zoo.training.trainer import quieten


class StepClock(Callback):
    """Seconds of each training step, and the rank schedule that it met."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.begin = 0.0
        self.ranks: dict[str, int] = {}
        self.pruning: RankPruning | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        """Note the ranks that training starts with."""
        self.ranks = dict(pl_module.ranks)
        self.pruning = next(c for c in trainer.callbacks if isinstance(c, RankPruning))  # type: ignore[attr-defined]

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the watch."""
        self.begin = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self.begin)


def train(arch: str, options: argparse.Namespace) -> list[tuple[float, float]]:
    """Return MACs and seconds per step of each stretch between two cuts."""
    pl.seed_everything(0, verbose=False)
    config = TrainConfig(
        arch=arch, data="cifar10", data_dir=options.data_dir, compression=options.compression, precision="bf16", lr=0.05
    )
    method = RobustLowrank(rank_budget="adaptive", start=4.0)
    data = open_config_data(config)
    model = with_normalization(starting_model(config, method, data), data.mean, data.std)
    parts = Parts(method, NoAdversary(), NoRegularizer(), NoFinisher())
    module, clock = Classifier(model, parts, data, data.source(train=True), config), StepClock()
    keep_freed_memory()
    pl.Trainer(
        max_steps=options.steps, precision="bf16-mixed", accelerator="cpu", callbacks=[clock], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    ).fit(module)  # fmt: skip
    assert clock.pruning is not None
    history = [{"step": 0, "ranks": clock.ranks}, *clock.pruning.history]
    ends = [cut["step"] for cut in history[1:]] + [len(clock.seconds)]
    stretches = []
    for cut, end in zip(history, ends, strict=True):
        backbone = create_backbone(arch, 10, data.image_shape)
        ranks = clock.ranks | {name.removeprefix("model.backbone."): rank for name, rank in cut["ranks"].items()}
        macs = count_macs(method.deploy(method.convert(backbone, ranks)), data.image_shape)
        # the first step after a cut allocates anew; the first of all builds oneDNN's kernels
        stretches.append((macs, statistics.median(clock.seconds[cut["step"] + 2 : end])))
    return stretches


def draw(results: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Draw the stretches, as shares of the first."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for arch, stretches in results.items():
        macs, seconds = zip(*stretches, strict=True)
        axes.plot([m / macs[0] for m in macs], [s / seconds[0] for s in seconds], "o-", label=arch)
    axes.plot([0, 1], [0, 1], ":", color="grey", label="in proportion")
    axes.set(xlabel="MACs over those at the start", ylabel="time of a training step over that at the start")
    axes.set(xlim=(0, 1.05), ylim=(0, 1.05))
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train each architecture for a few steps, print the stretches, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", default="vgg16_bn,resnet18")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--compression", type=float, default=0.9)
    parser.add_argument("--steps", type=int, default=180)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    quieten()
    results = {}
    for arch in options.archs.split(","):
        results[arch] = train(arch, options)
        (macs, seconds), *_ = results[arch]
        for m, s in results[arch]:
            shares = f"{m / macs:.2f} of the start's MACs, {s / seconds:.2f} of its time"
            print(f"{arch:10} {m:13,.0f} MACs  {s * 1e3:6.0f} ms a step: {shares}", flush=True)
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
