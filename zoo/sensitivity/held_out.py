"""Held-out images of a training: decisions about a network use them, never test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from zoo.data import Source, stratified
from zoo.sensitivity.probe_context import ProbeContext

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True)
class HeldOut:
    """The validation images of a training, and the radius of its threat model.

    Attributes:
        source: returns the training split on its current device, to which Lightning moves it.
        indices: of the validation images in it.
        eps: Linf radius in pixels of [0, 1].
    """

    source: Callable[[], Source]
    indices: Int[Tensor, " batch"]
    eps: float

    def __len__(self) -> int:
        return len(self.indices)

    def context(self, model: nn.Module, n: int) -> ProbeContext:
        """Return a network, in eval mode, with at most n of the images, the same share of each class."""
        source = self.source()
        rows = self.indices.to(source.labels.device)
        rows = rows[stratified(source.labels[rows].cpu(), n, seed=0).to(rows.device)]
        return ProbeContext(model, source.fetch(rows), source.labels[rows], self.eps)
