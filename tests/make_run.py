"""Make a RUN folder without training, for tests."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.methods import METHODS
from zoo.runs.card import Card
from zoo.runs.records import Provenance
from zoo.runs.run import CARD, Run, save_weights
from zoo.runtime.complexity import count_macs, count_params

DIGITS = tuple("0123456789")
CLASSES = tuple(f"{digit} ✓" for digit in range(10))
"""Names that no ASCII file holds."""


@torch.no_grad()
def shake(model: nn.Module) -> nn.Module:
    """Give BatchNorms and biases values as after training, in place: fresh ones hide mistakes."""
    generator = torch.Generator().manual_seed(0)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.copy_(uniform(module.running_mean, -0.3, 0.3))
            module.running_var.copy_(uniform(module.running_var, 0.5, 1.5))
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 1:
                low, high = (0.5, 1.5) if name == "weight" else (-0.3, 0.3)
                parameter.copy_(uniform(parameter, low, high))
    return model


def make_run(
    folder: Path,
    arch: str = "test_resnet",
    method: str = "lowrank",
    image_shape: tuple[int, int, int] = (1, 8, 8),
    compression: float | None = 0.5,
    data: str = "digits",
    class_names: tuple[str, ...] = DIGITS,
) -> Run:
    """Write the folder of a run that was never trained."""
    torch.manual_seed(0)
    how = METHODS.get(method)()
    dense = create_backbone(arch, len(class_names), image_shape)
    ranks = how.plan(dense, None if compression is None else Budget(compression=compression))
    numbers: dict[str, Any] = {
        "dense_params": count_params(dense),
        "dense_macs": count_macs(dense, image_shape),
    }
    mean, std = (0.3,) * image_shape[0], (0.4,) * image_shape[0]
    trained = with_normalization(shake(how.convert(dense, ranks)), mean, std).eval()
    deployed = how.deploy(trained)
    folder.mkdir(parents=True)
    card = Card(
        arch=arch,
        method=method,
        method_options={},
        data=data,
        image_shape=image_shape,
        mean=mean,
        std=std,
        class_names=class_names,
        ranks=ranks,
        params=count_params(deployed),
        macs=count_macs(deployed, image_shape),
        **numbers,
        layers=(),
        max_condition_number=None,
        training={},
        weights=save_weights(trained, folder),
        provenance=Provenance(command="zoo train", seed=0, commit=None, versions={}, hardware="none"),
    )
    card.save(folder / CARD)
    return Run(folder)
