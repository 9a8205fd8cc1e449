"""A LightningModule that knows nothing of zoo but its layers, and a callback that watches its constraints."""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from zoo.linalg import orthonormality_error
from zoo.lowrank.layers import FactorizedConv2d, FactorizedLinear, factorized_layers


class Watch(pl.Callback):
    """Measure every layer after each real optimizer step, and count the steps."""

    def __init__(self) -> None:
        self.orthonormality: list[float] = []
        self.condition: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self.measure(pl_module))

    def measure(self, model: nn.Module) -> None:
        layers = [layer for _, layer in factorized_layers(model)]
        self.orthonormality.append(
            max(float(orthonormality_error(x.detach())) for layer in layers for x in (layer.U, layer.V))
        )
        cores = [layer.core_matrix.detach().double() for layer in layers]
        self.condition.append(max(float(torch.linalg.cond(core)) for core in cores))


class UsersModule(pl.LightningModule):
    def __init__(self, optimizer: str = "sgd", lr: float = 0.1, momentum: float = 0.9, nesterov: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(
            FactorizedConv2d(nn.Conv2d(1, 8, 3, padding=1), 4),
            nn.ReLU(),
            FactorizedConv2d(nn.Conv2d(8, 8, 3, stride=2), 5, "random"),
            nn.Flatten(),
            FactorizedLinear(nn.Linear(72, 10), 6),
        )
        self.options = optimizer, lr, momentum, nesterov

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]).float(), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        name, lr, momentum, nesterov = self.options
        if name == "sgd":
            return torch.optim.SGD(self.parameters(), lr=lr, momentum=momentum, nesterov=nesterov)
        if name == "rmsprop":
            return torch.optim.RMSprop(self.parameters(), lr=lr, momentum=momentum)
        return torch.optim.Adam(self.parameters(), lr=lr)


def fit(module: pl.LightningModule, callbacks: list[pl.Callback], steps: int = 8, **options) -> pl.Trainer:
    data = TensorDataset(torch.rand(64, 1, 8, 8), torch.randint(0, 10, (64,)))
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, batch_size=8))
    return trainer
