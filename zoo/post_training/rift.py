"""Robust critical fine-tuning: regain clean accuracy from the layer that robustness depends on least.

Zhu, Hu, Wang, Xie: Improving generalization of adversarial training via robust critical fine-tuning, ICCV 2023,
arXiv 2308.02533.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zoo.attacks.pgd import PGD
from zoo.callbacks import SpectrumClamp
from zoo.errors import UserError
from zoo.lowrank.layers import Factorized
from zoo.post_training._base import Finisher, TrainedNetwork
from zoo.sensitivity.criticality import robust_criticality
from zoo.sensitivity.held_out import HeldOut
from zoo.sensitivity.probe_context import ProbeContext

GRID = tuple(k / 10 for k in range(11))


@dataclass(frozen=True)
class Rift(Finisher):
    """Fine-tune the least critical layer on clean images, then return towards the robust weights as far as needed.

    Criticality is that of `zoo.sensitivity.criticality`. The candidates are the weights (1 - alpha) robust + alpha
    tuned, alpha in 0, 0.1, ..., 1. Among those as robust to PGD-10 as the robust weights, the ones with the best clean
    accuracy are kept. This project's own: all decisions use validation images (the released code uses test images);
    normalisation statistics stay; in a factorized layer only S moves, so that U and V stay orthonormal, and a clamp of
    the method holds for every alpha.
    """

    epochs: int = 10
    """Passes over the clean training images; 10 in the paper."""
    lr: float = 1e-3
    """Learning rate of SGD, a tenth of it in the second half; 1e-3 in the paper."""
    radius: float = 0.1
    """Relative radius within which a layer moves when its criticality is measured."""
    tolerance: float = 0.001
    """Robust accuracy that may be lost, as a share of the validation images."""
    n: int = 1000
    """Validation images on which criticality and accuracy are measured, at most."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.n < 1:
            raise UserError("rift needs at least one epoch and one validation image")
        if not (self.lr > 0 and self.radius > 0 and 0 <= self.tolerance < 1):
            raise UserError("rift needs lr > 0, radius > 0 and 0 <= tolerance < 1")

    def obstacle(self, adversarial: bool) -> str:
        """Refuse a training without an adversary: it has given up no clean accuracy."""
        if adversarial:
            return ""
        return "rift gives back clean accuracy that adversarial training cost: train with --adversary, such as pgd"

    def check(self, held_out: HeldOut) -> None:
        """Require validation images."""
        if not held_out:
            raise UserError("rift decides on validation images: give --val-fraction above 0")

    def refine(self, trained: TrainedNetwork) -> dict[str, Any]:
        """Fine-tune the least critical layer, and interpolate."""
        self.check(trained.held_out)
        critical = robust_criticality(self._context(trained), self.radius)
        least = min(critical, key=lambda name: critical[name])
        layer = trained.model.get_submodule(least)
        clamps = [c for c in trained.method.callbacks(None) if isinstance(c, SpectrumClamp)]  # U and V stay
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        trained.fine_tune(layer, moving_part(layer), clamps, self.epochs, self.lr)
        tuned = moving_part(layer).detach().clone()

        def interpolate(alpha: float) -> None:
            layer.load_state_dict(before)
            if alpha:
                moving_part(layer).data.lerp_(tuned, alpha)
                for clamp in clamps:
                    clamp.layers = [layer] if isinstance(layer, Factorized) else []
                    clamp.project_(None)

        path = []
        for alpha in GRID:
            interpolate(alpha)
            path.append({"alpha": alpha} | self._accuracies(trained))
        kept = self._best(path)
        interpolate(kept["alpha"])
        return {"module": least, "kept": kept, "path": path, "criticality": critical, "n": self._n(trained)}

    def _best(self, path: list[dict[str, float]]) -> dict[str, float]:
        """Return the best clean accuracy among those robust enough; among equals, the nearest to the robust weights."""
        return max(
            (point for point in path if point["robust"] >= path[0]["robust"] - self.tolerance - 1e-9),
            key=lambda point: (point["clean"], -point["alpha"]),
        )

    def _n(self, trained: TrainedNetwork) -> int:
        return min(self.n, len(trained.held_out))

    def _context(self, trained: TrainedNetwork) -> ProbeContext:
        """Return the current deployed network, with the validation images."""
        return trained.held_out.context(trained.method.deploy(trained.model).eval(), self._n(trained))

    def _accuracies(self, trained: TrainedNetwork) -> dict[str, float]:
        context = self._context(trained)
        attack = PGD(steps=10, random_start=False)
        found = attack(context.model, context.images, context.labels, [context.eps], batch_size=context.batch_size)
        return {"clean": _share(context.correct(context.images)), "robust": _share(found.robust[0])}


def moving_part(layer: nn.Module) -> nn.Parameter:
    """Return the parameter of a layer to fine-tune: S if it is factorized, otherwise its weight."""
    part = layer.S if isinstance(layer, Factorized) else layer.weight
    assert isinstance(part, nn.Parameter)
    return part


def _share(right: torch.Tensor) -> float:
    return right.float().mean().item()
