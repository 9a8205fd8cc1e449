"""How attacks transfer: the accuracy of one model on adversarial images made on another.

Papernot, McDaniel, Goodfellow: Transferability in machine learning: from phenomena to black-box attacks using
adversarial samples, arXiv 1605.07277.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attacks import ATTACKS, Attack, AttackedModel, Gradients, Norm, check_eps, distance, fp32
from zoo.errors import UserError
from zoo.runtime.eval_mode import require_eval_mode


@dataclass(frozen=True)
class TransferMatrix:
    """Accuracies on images that were attacked on each model.

    Attributes:
        models: names.
        attack, norm, eps, options: how the images were made.
        clean: accuracy of each model on the images as they are, in 0..1.
        accuracy: ``accuracy[i][j]`` is that of model j on images attacked on model i, in 0..1.
        n: test images.
        seed: of their draw and of the attack.
    """

    models: tuple[str, ...]
    attack: str
    norm: Norm
    eps: float
    options: dict[str, Any]
    clean: tuple[float, ...]
    accuracy: tuple[tuple[float, ...], ...]
    n: int
    seed: int = 0


class _WithoutStopping(AttackedModel):
    """A model whose attacks by gradients take all their steps: images that only just fool it rarely fool another."""

    def ascent(self, images: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return no image as misclassified, and losses and gradients as ever."""
        wrong, values, gradient = super().ascent(images, *arguments)
        return torch.zeros_like(wrong), values, gradient


def transfer(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    eps: float,
    *,
    batch_size: int = 250,
    gradients: Gradients = "fp32",
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = lambda text: None,
    seed: int = 0,
) -> TransferMatrix:
    """Attack each model, and measure all of them on the images that this gives.

    Every image is attacked, also those that the attacked model misclassifies. Attacks by gradients do not stop at the
    first misclassified point. A model's accuracy on its own images is therefore not that of `zoo.evaluation.evaluate`.

    Args:
        models: by name, in eval mode; images in [0, 1] to logits.
        images: uint8 (N, C, H, W), N >= 1.
        labels: class indices (N,).
        attack: how the images are made.
        eps: the radius.
        batch_size: images that a model gets at once, at most.
        gradients: of the attack, see `zoo.attacks.Attack`.
        device: where to compute.
        say: called with a line on each model.
        seed: to record.

    Raises:
        UserError: the radius is impossible, a model is in training mode or has too few classes for the attack.
    """
    check_eps(eps, attack.norm, images[0].numel())
    x, y = images.to(device).float().div(255), labels.to(device)
    clean, rows = [], []
    for model in models.values():
        require_eval_mode(model, "an attack")
        model.to(device)
        clean.append(_accuracy(model, x, y, batch_size))
    for i, (name, model) in enumerate(models.items(), 1):
        say(f"attacking {name}, {i} of {len(models)}")
        adversarial = _adversarial(model, x, y, attack, eps, batch_size, gradients)
        rows.append(tuple(_accuracy(other, adversarial, y, batch_size) for other in models.values()))
    options = asdict(attack) | ({"gradients": gradients} if gradients != "fp32" else {})
    norm = options.pop("norm")
    return TransferMatrix(
        tuple(models), ATTACKS.name_of(attack), norm, eps, options, tuple(clean), tuple(rows), len(y), seed
    )


def _accuracy(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> float:
    with fp32(x.device):
        return AttackedModel(model, batch_size).correct(x, y).double().mean().item()


def _adversarial(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack, eps: float, batch_size: int, gradients: Gradients
) -> Tensor:
    """Return where the attack ended for each image; at eps 0 the images."""
    with fp32(x.device):
        attacked = _WithoutStopping(model, batch_size, gradients=gradients)
        if obstacle := attack.obstacle(attacked.logits(x[:1]).shape[1]):
            raise UserError(obstacle)
        found = attack.perturb(attacked, x, y, eps).detach() if eps else x
    if not float(distance(found, x, attack.norm).max()) <= eps * (1 + 1e-6) or found.min() < 0 or found.max() > 1:
        raise RuntimeError(f"{attack!r} left [0, 1] or its ball")
    return found
