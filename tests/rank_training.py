"""Small modules whose ranks or channels change while they train.

``python rank_training.py FOLDER pruning|dynamical|channels`` trains one in two processes, each of which saves what it
ends with.
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from zoo.callbacks import ChannelPruning, DynamicalLowRank, OrthonormalRetraction, RankPruning, SpectrumClamp
from zoo.channels import widths
from zoo.lowrank.layers import FactorizedConv2d, FactorizedLinear, factorized_layers


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
        """Return SGD with momentum, Adafactor, or Adam."""
        if self.optimizer == "adafactor":
            return torch.optim.Adafactor(self.parameters())
        if self.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Plain(Digits):
    """Convolutions with batch normalisation and a sum of two branches, nothing factorized."""

    image_shape = (1, 8, 8)

    def __init__(self, optimizer: str = "sgd") -> None:
        super().__init__(optimizer)
        self.net = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), Residual(32))
        self.net.extend([nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.net(x)


class Residual(nn.Module):
    """x + f(x), f two convolutions with normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.second = nn.Conv2d(64, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.second(self.norm(self.first(x)).relu())


def loader(seed: int = 0) -> DataLoader:
    """Return 128 random images with random labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(128, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, torch.randint(0, 10, (128,), generator=generator)), batch_size=8)


def fit(
    module: pl.LightningModule, callbacks: list[pl.Callback], ckpt_path: Path | None = None, **options
) -> pl.Trainer:
    """Train for two epochs of 16 steps on the CPU, or go on from a checkpoint."""
    options = {"max_epochs": 2, "accelerator": "cpu"} | options
    trainer = pl.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, **options,
    )  # fmt: skip
    trainer.fit(module, loader(), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


def main(folder: Path, kind: str) -> None:
    """Train in two processes, and save."""
    pl.seed_everything(0, verbose=False)
    module = Plain() if kind == "channels" else Digits()
    schedules = {
        "pruning": lambda: RankPruning(0.6, cuts=3, window=2),
        "dynamical": lambda: DynamicalLowRank(0.6, local_steps=2),
        "channels": lambda: ChannelPruning(0.6, "taylor", cuts=3, window=2),
    }
    schedule = schedules[kind]()
    constraints = [OrthonormalRetraction(), SpectrumClamp(0.1)] if kind == "pruning" else []
    trainer = fit(module, [schedule, *constraints], devices=2, strategy="ddp")
    ended = {
        "weights": {name: p.detach() for name, p in module.named_parameters()},
        "ranks": {name: layer.rank for name, layer in factorized_layers(module)} or widths(module),
        "history": schedule.history,
    }
    torch.save(ended, folder / f"{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
