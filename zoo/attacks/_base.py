"""The contract of an attack, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, get_args

import torch
from torch import Tensor, nn

from zoo.attacks._attacked_model import AttackedModel, Gradients, Queries, fp32
from zoo.attacks._threat import Norm, check_eps, distance
from zoo.errors import UserError, unknown_name
from zoo.runtime.eval_mode import require_eval_mode

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Integer


@dataclass(frozen=True)
class Outcome:
    """The result of an attack, for each radius and image.

    Attributes:
        adversarial: the images it ended at, in [0, 1] and within each radius.
        robust: whether they are still classified correctly, by a fresh forward pass. An image that is misclassified
            without an attack is not robust, and is returned unchanged.
    """

    adversarial: Float[Tensor, "eps batch c h w"]
    robust: Bool[Tensor, "eps batch"]


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """A search for images near the given ones that a model misclassifies.

    A subclass is a frozen dataclass in a file of its own, whose name is the attack's. Its fields are its
    settings and are recorded with every figure. A figure does not depend on the other radii of the call: each is
    searched separately, or one search that knows no radius serves all (`MinimumNorm`).
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    """Norms in which the attack searches."""

    black_box: ClassVar[bool] = False
    """Whether it searches by logits alone, without gradients: its queries can be answered by an exported file."""

    norm: Norm = "Linf"
    """Norm of the perturbation, one of `norms`."""

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            raise unknown_name("norm", self.norm, self.norms)
        for field in fields(self):
            count = getattr(self, field.name)
            if isinstance(count, int) and not isinstance(count, bool) and field.name != "seed" and count < 1:
                raise UserError(f"{self!r}: {field.name} must be at least 1")

    def obstacle(self, classes: int) -> str:
        """Return why the attack cannot be run on a model with this number of classes, or ``""``."""
        return ""

    def parts(self, classes: int) -> list[Attack]:
        """Return the attacks that this one consists of, in order; each gets the images that are robust so far."""
        return [self]

    def skipped(self, classes: int) -> list[Attack]:
        """Return the parts that are left out because they cannot be run on a model with this number of classes."""
        return []

    @abstractmethod
    def passes(self, classes: int) -> int:
        """Return about how often the model sees an image that is robust to the whole attack."""

    @abstractmethod
    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return images within eps of the given ones, for one eps > 0.

        Args:
            attacked: the model under attack.
            images: one or more, all classified correctly.
            labels: class indices.
            eps: the radius in pixel units.
        """

    def curve(
        self,
        attacked: AttackedModel,
        images: Float[Tensor, "batch c h w"],
        labels: Int[Tensor, " batch"],
        eps: Sequence[float],
    ) -> Iterator[Float[Tensor, "batch c h w"]]:
        """Yield images within each radius, all above 0; arguments as in `perturb`."""
        for e in eps:
            yield self.perturb(attacked, images, labels, e)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch c h w"],
        labels: Integer[Tensor, " batch"],
        eps: Sequence[float],
        *,
        batch_size: int = 250,
        tick: Callable[[int], None] | None = None,
        gradients: Gradients = "fp32",
        queries: Queries | None = None,
    ) -> Outcome:
        """Attack each image at each radius.

        Args:
            model: in eval mode; takes images in [0, 1] (it normalises them itself), returns logits.
            images: float32 in [0, 1], on the model's device.
            labels: class indices.
            eps: radii, in pixel units 0..1 for Linf and 0..sqrt(C H W) for L2, for L0 numbers of pixels; 0 is no
                attack.
            batch_size: images that the model gets at once, at most; see `AttackedModel`.
            tick: called after each batch with the number of images that the model has seen; see `passes`.
            gradients: ``bf16`` computes gradients under autocast and lets a GPU query in TF32, faster if the hardware
                supports them; verdicts are taken in fp32 either way.
            queries: the same function by a faster library, for the parts that need no gradients; verdicts are still
                the model's.

        Raises:
            UserError: images, labels or an eps are out of range; or the model is in training mode, its weights are not
                fp32, it returns something other than logits, NaN, or logits without a gradient in the images, or it
                has too few classes for this attack.
        """
        _check(model, images, labels)
        if batch_size < 1 or gradients not in get_args(Gradients):
            raise UserError(f"batch_size must be at least 1, gradients fp32 or bf16: got {batch_size} and {gradients}")
        for e in _radii(eps):
            check_eps(e, self.norm, images[0].numel())
        with fp32(images.device):
            images, labels = images.detach().clone(), labels.long().clone()
            attacked = AttackedModel(model, batch_size, tick, gradients, queries)
            vulnerable = attacked.correct(images, labels)
            if obstacle := self.obstacle(attacked.logits(images[:1]).shape[1]):
                raise UserError(obstacle)
            adversarial = images.repeat(len(eps), 1, 1, 1, 1)
            robust = vulnerable.repeat(len(eps), 1)
            searched = [i for i, e in enumerate(eps) if e > 0] if bool(vulnerable.any()) else []
            radii = [eps[i] for i in searched]
            ends = self.curve(attacked, images[vulnerable], labels[vulnerable], radii)
            for i, end in zip(searched, ends, strict=False):
                found = end.detach()
                self._hold_to(eps[i], found, images[vulnerable])
                adversarial[i, vulnerable] = found
                robust[i] &= attacked.correct(adversarial[i], labels)
        return Outcome(adversarial, robust)

    def _hold_to(self, eps: float, found: Float[Tensor, "batch c h w"], images: Float[Tensor, "batch c h w"]) -> None:
        """Refuse images outside the threat model: a figure from them would be worthless."""
        inside = bool(((found >= 0) & (found <= 1)).all())
        largest = float(distance(found, images, self.norm).max())
        if not inside or not largest <= eps * (1 + 1e-6):
            raise RuntimeError(f"{self!r} left [0, 1] or its ball: moved {largest:g} at eps {eps:g}")


def _check(model: nn.Module, images: Float[Tensor, "batch c h w"], labels: Integer[Tensor, " batch"]) -> None:
    require_eval_mode(model, "an attack")
    shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
    if images.ndim != 4 or labels.shape != images.shape[:1] or not len(images):
        raise UserError(f"an attack needs images (B, C, H, W) and labels (B,), B >= 1: got {shapes}")
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise UserError(f"an attack needs class indices as labels: got {labels.dtype}")
    if images.dtype != torch.float32:
        raise UserError(f"an attack needs float32 images in [0, 1]: got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if not 0 <= low <= high <= 1:
        raise UserError(f"images in {low:g}..{high:g}: attacks need [0, 1], the model normalises")


def _radii(eps: Sequence[float]) -> Sequence[float]:
    if not isinstance(eps, Sequence) or not all(isinstance(e, int | float) for e in eps):
        raise UserError(f"eps is a list of radii in pixels of [0, 1], such as [8 / 255]: got {eps!r}")
    return eps
