"""The singular values of every layer, before and after training."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from zoo.budget import Budget
from zoo.errors import UserError
from zoo.evaluation.conditioning import BACKBONE
from zoo.lowrank.layers import Factorized
from zoo.runs.run import Run, read_config
from zoo.training.build import starting_backbone


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one layer's weight matrix, descending; a factorized layer has as many as its rank.

    Attributes:
        before: of the converted model at initialisation, before any constraint; empty if that cannot be rebuilt.
        after: of the finished run.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]


def spectra(run: Run) -> tuple[dict[str, Spectrum], str]:
    """Return the spectrum of each layer by its name, and why the spectra before training are missing, or ``""``.

    The weights before training are not stored: they are built again from the configuration and the seed.

    Raises:
        UserError: the run's weights are missing or damaged.
    """
    after = singular_values(run.trained_model())
    try:
        before, reason = singular_values(starting_model(run)), ""
    except UserError as error:
        before, reason = {}, str(error)
    return {name: Spectrum(before.get(name, ()), values) for name, values in after.items()}, reason


def starting_model(run: Run) -> nn.Module:
    """Return the initial converted model of a run's training, rebuilt from its configuration and seed.

    Raises:
        UserError: the configuration is missing, or the weights that it started from no longer exist.
    """
    config = read_config(run.folder)
    weights = Path(config["weights"]) if config.get("weights") else None
    compression, fraction = config.get("compression"), config.get("rank_fraction")
    if config.get("pretrained"):
        raise UserError(f"{run.name} started from timm's pretrained weights, which are not fetched for a report")
    if config.get("init"):
        raise UserError(f"{run.name} started from the trained model {config['init']}, whose weights it did not keep")
    if run.method.calibrated_on:
        raise UserError(f"{run.name} started from factors fitted to training images, which a report does not read")
    generator = torch.random.get_rng_state()
    try:
        torch.manual_seed(config["seed"])
        model = starting_backbone(
            run.card.arch, len(run.card.class_names), run.card.image_shape, weights, stem=run.card.stem
        )
        given = compression is not None or fraction is not None
        budget = Budget(compression, fraction, config.get("macs_reduction")) if given else None
        return run.method.convert(model, run.method.plan(model, budget))
    finally:
        torch.random.set_rng_state(generator)


@torch.no_grad()
def singular_values(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Return the singular values of each linear and ungrouped convolution layer, by its name in the bare backbone."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Factorized):
            values = module.singular_values()
        elif type(module) in (nn.Linear, nn.Conv2d) and getattr(module, "groups", 1) == 1:
            values = _dense(module.get_parameter("weight").flatten(1).double())
        else:
            continue
        found[name.removeprefix(BACKBONE)] = tuple(values.tolist())
    return found


def _dense(weight: torch.Tensor) -> torch.Tensor:
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    return torch.linalg.eigvalsh(wide @ wide.mT).flip(0).clamp_min(0).sqrt()
