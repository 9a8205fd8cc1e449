"""Accuracies under attack on the validation images, after each epoch of adversarial training."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from zoo.attacks import Attack, Gradients
from zoo.attacks.cr import CR
from zoo.attacks.pgd import PGD

PROBE_IMAGES = 512
"""Images that are attacked after each epoch."""
PGD_10 = PGD(steps=10)
SHORT_CR = CR(steps=60, restarts=1)
"""The short form of CR: two cycles towards each class, once."""


class MonitoredAttack(NamedTuple):
    """An attack, and the number format of its gradients."""

    attack: Attack
    gradients: Gradients


def monitored_attacks(monitor: str, gradients: Gradients) -> dict[str, MonitoredAttack]:
    """Return the attacks of a validation by the name of their metric: PGD always, CR where it picks the best epoch.

    Args:
        monitor: ``pgd`` or ``cr``.
        gradients: number format of CR's gradients; PGD's are always fp32.
    """
    attacks = {"val_pgd_accuracy": MonitoredAttack(PGD_10, "fp32")}
    if monitor == "cr":
        attacks["val_cr_accuracy"] = MonitoredAttack(SHORT_CR, gradients)
    return attacks


def robust_accuracies(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, attacks: Mapping[str, MonitoredAttack]
) -> dict[str, Tensor]:
    """Return the accuracy under each attack.

    Args:
        model: takes images in [0, 1].
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
        eps: radius in Linf.
        attacks: by the name of their metric.
    """
    return {
        name: monitored.attack(model, images, labels, [eps], gradients=monitored.gradients).robust[0].float().mean()
        for name, monitored in attacks.items()
    }
