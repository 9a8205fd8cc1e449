"""A small module whose ranks change while it trains.

``python rank_training.py FOLDER pruning|dynamical`` trains it in two processes, each of which saves what it ends with.
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from zoo.callbacks import DynamicalLowRank, OrthonormalRetraction, RankPruning, SpectrumClamp
from zoo.layers import FactorizedConv2d, FactorizedLinear, factorized_layers


class Digits(pl.LightningModule):
    """A small convolutional network of three factorized layers."""

    def __init__(self, optimizer: str = "sgd") -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            FactorizedConv2d(nn.Conv2d(32, 48, 3, padding=1), 24),
            nn.ReLU(),
            FactorizedConv2d(nn.Conv2d(48, 64, 3, stride=2), 32, "random"),
            nn.Flatten(),
            FactorizedLinear(nn.Linear(576, 64), 40),
            nn.Linear(64, 10),
        )
        self.optimizer = optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum, or Adam."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def loader(seed: int = 0) -> DataLoader:
    """Return 128 random images with random labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(128, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, torch.randint(0, 10, (128,), generator=generator)), batch_size=8)


def fit(module: pl.LightningModule, callbacks: list[pl.Callback], **options) -> pl.Trainer:
    """Train for two epochs of 16 steps on the CPU."""
    options = {"max_epochs": 2, "accelerator": "cpu"} | options
    trainer = pl.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, **options,
    )  # fmt: skip
    trainer.fit(module, loader())
    return trainer


def main(folder: Path, kind: str) -> None:
    """Train in two processes, and save."""
    pl.seed_everything(0, verbose=False)
    module = Digits()
    schedule = RankPruning(0.6, cuts=3, window=2) if kind == "pruning" else DynamicalLowRank(0.6, local_steps=2)
    constraints = [OrthonormalRetraction(), SpectrumClamp(0.1)] if kind == "pruning" else []
    trainer = fit(module, [schedule, *constraints], devices=2, strategy="ddp")
    ended = {
        "weights": module.state_dict(),
        "ranks": {name: layer.rank for name, layer in factorized_layers(module)},
        "history": schedule.history,
    }
    torch.save(ended, folder / f"{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
