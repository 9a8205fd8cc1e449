"""Attack any classifier, and measure its accuracy under attack."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from zoo import evaluation
from zoo.api._checks import Classifier, Logits, class_indices, device_of, plugin, unit_images
from zoo.attacks import ATTACKS, Attack, Norm, parse_eps
from zoo.errors import UserError
from zoo.evaluation import choose_sweeps
from zoo.runs.records import Evaluation
from zoo.runtime.eval_mode import require_eval_mode

Eps = float | str
"""A radius in pixels of [0, 1], as a number or written as ``8/255``."""


class Attacked(NamedTuple):
    """What an attack found for B images.

    Attributes:
        images: where the search ended, fp32 (B, C, H, W), in [0, 1] and within eps of the given images.
        robust: whether each is still classified correctly, bool (B,). An image that is misclassified without an attack
            is not robust, and is returned unchanged.
    """

    images: Tensor
    robust: Tensor


def attack(
    model: Classifier,
    images: Tensor,
    labels: Tensor | Sequence[int],
    eps: Eps = "8/255",
    attack: str | Attack = "pgd",
    *,
    batch_size: int = 250,
    **options: Any,
) -> Attacked:
    """Search for adversarial images of a classifier, and return which images stay robust.

    Args:
        model: an `nn.Module` in eval mode, or any differentiable function: images in [0, 1] to logits (B, K). It
            normalises the images itself.
        images: (B, C, H, W), uint8 or in [0, 1]; they are moved to the model's device.
        labels: class indices (B,).
        eps: the radius in pixels of [0, 1], such as ``"8/255"``; of an attack in L0 the number of changed pixels.
        attack: a name, see ``zoo list --attacks``, or the attack itself.
        batch_size: images that the model gets at once, at most.
        options: of the attack, such as ``norm="L2"`` or ``steps=20``.

    Returns:
        The images found and the verdicts, on the device of ``images``.

    Raises:
        UserError: the model is in training mode or returns no logits; images, labels, eps or options do not fit.

    Examples:
        >>> import torch, zoo
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images = torch.rand(5, 1, 8, 8)
        >>> labels = net(images).argmax(1)
        >>> found = zoo.attack(net, images, labels, eps="4/255", steps=5)
        >>> found.images.shape, found.robust.shape
        (torch.Size([5, 1, 8, 8]), torch.Size([5]))
        >>> bool((found.images - images).abs().max() <= 4 / 255)
        True
    """
    if options and not isinstance(attack, str):
        raise UserError(f"an attack that is given as an object has its options: leave {', '.join(options)} out")
    _require_eval_mode(model, "an attack")
    search = plugin(ATTACKS, attack, options) if isinstance(attack, str) else attack
    unit = unit_images(images)
    device = device_of(model) or unit.device
    labels = class_indices(labels, images).to(device)
    outcome = search(Logits(model), unit.to(device), labels, [_radius(eps)], batch_size=batch_size)
    return Attacked(outcome.adversarial[0].to(images.device), outcome.robust[0].to(images.device))


def evaluate(
    model: Classifier,
    images: Tensor,
    labels: Tensor | Sequence[int],
    attacks: str | Sequence[str] = "quick",
    eps: Eps | Sequence[Eps] | None = None,
    *,
    norms: Sequence[Norm] | None = None,
    seed: int = 0,
    batch_size: int = 250,
    progress: bool = False,
) -> list[Evaluation]:
    """Measure clean accuracy, then the accuracy under each attack at each radius.

    Args:
        model: an `nn.Module` in eval mode, or any differentiable function: images in [0, 1] to logits (B, K). It
            normalises the images itself.
        images: (B, C, H, W), uint8, or in [0, 1], which are rounded to 256 levels as in image files.
        labels: class indices (B,).
        attacks: names of attacks, or of a tier: ``quick``, ``reliable``, ``standard`` (AutoAttack) or ``full``.
        eps: one or several radii in pixels of [0, 1], such as ``"8/255"``; None: those of the tier, or of small ones.
        norms: ``Linf``, ``L2``, ``L1``, ``L0`` or several; None: those of the tier, or Linf alone if ``eps`` is given.
        seed: of attacks with random choices.
        batch_size: images that the model gets at once, at most.
        progress: show a bar on standard error.

    Returns:
        The clean accuracy first, then one evaluation per attack and radius.

    Raises:
        UserError: see `attack`; or no attack has one of the names.

    Examples:
        >>> import torch, zoo
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images = torch.rand(20, 1, 8, 8)
        >>> labels = net(images).argmax(1)
        >>> for found in zoo.evaluate(net, images, labels, attacks="fgsm", eps=["0/255", "128/255"]):
        ...     print(found.attack, found.norm, round(found.eps, 3), found.accuracy)
        clean None 0.0 1.0
        fgsm Linf 0.0 1.0
        fgsm Linf 0.502 0.0
    """
    _require_eval_mode(model, "an evaluation")
    radii = None if eps is None else [_radius(e) for e in ([eps] if isinstance(eps, float | int | str) else eps)]
    sweeps = choose_sweeps([attacks] if isinstance(attacks, str) else attacks, norms, radii, seed)
    pixels = unit_images(images).mul(255).round().byte()
    wrapped, labels = Logits(model), class_indices(labels, images)
    return evaluation.evaluate(wrapped, pixels, labels, sweeps, batch_size=batch_size, progress=progress)


def _require_eval_mode(model: Classifier, purpose: str) -> None:
    if isinstance(model, nn.Module):
        require_eval_mode(model, purpose)


def _radius(eps: Eps) -> float:
    return parse_eps(eps) if isinstance(eps, str) else float(eps)
