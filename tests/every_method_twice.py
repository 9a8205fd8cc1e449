"""Train every method in this process and in those that train with it, and save what each of them ends with.

``torchrun --nproc-per-node 2 every_method_twice.py FOLDER METHOD...``: FOLDER/METHOD-RANK.pt.
"""

import sys
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as pl
import torch

import zoo.training.trainer
from zoo.callbacks import RankSchedule, peers
from zoo.methods import METHODS
from zoo.runs.config import TrainConfig

RECIPE = {
    "arch": "test_resnet", "epochs": 4, "batch_size": 32, "device": "cpu", "precision": "32-true",
    "trainer": {"devices": 2, "strategy": "ddp", "enable_progress_bar": False},
}  # fmt: skip


class SaveTheEnd(pl.Callback):
    """Save weights, ranks and cuts of this process, and its shares of the images, when the training ends."""

    def __init__(self, stem: Path) -> None:
        self.stem = stem

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save them as ``STEM-RANK.pt``."""
        ended = {
            "weights": {name: p.detach() for name, p in pl_module.model.named_parameters()},
            "ranks": pl_module.ranks,
            "cuts": [schedule.history for schedule in peers(trainer, RankSchedule)],
            "steps": trainer.global_step,
            "world": trainer.world_size,
        }
        torch.save(ended, self.stem.with_name(f"{self.stem.name}-{trainer.global_rank}.pt"))


def main(folder: Path, methods: list[str]) -> None:
    """Train, one method after the other; the trained networks are not measured."""
    zoo.training.trainer.finalize_run = lambda *_: None
    for method in methods:
        config = TrainConfig(**RECIPE, compression=None if method == "dense" else 0.5, out=folder / method)
        with suppress(SystemExit):  # with which all processes but the first end
            zoo.training.trainer.train(config, METHODS.get(method)(), callbacks=[SaveTheEnd(folder / method)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
