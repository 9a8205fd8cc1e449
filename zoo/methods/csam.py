"""C-SAM: channels are cut by scores whose loss stays low when the mask moves.

He, Chen: Towards compact and robust DNNs via compression-aware sharpness minimization, arXiv 2601.20301.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.budget import Budget
from zoo.channels.masks import ChannelMasks
from zoo.corruptions.transforms import TRANSFORMS, drawn
from zoo.errors import UserError
from zoo.methods._base import Objective, cross_entropy
from zoo.methods._pruning import BACKBONE, ChannelMethod, compression
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

TINY = 1e-20


@dataclass(frozen=True)
class Csam(ChannelMethod):
    """Masks learned at their worst perturbation, for stable answers under random transforms; cut, fine-tuning.

    From the paper, of which only the abstract was available: sharpness is taken in the mask, not in the weights; soft
    masks start at magnitudes over a percentile, clipped to 0..1; uniform noise is added; and the loss asks for
    structural stability and for probabilistic robustness in the sense of CC-Cert (Pautov et al., arXiv 2109.10696).
    This project's: a score per channel, made a mask by the largest with a straight-through gradient, which meets the
    budget exactly; one normalized step of relative length rho upwards; and the terms
    stability * max |p(x) - p(T(x))| + margin * relu(gap - (p1 - p2) / 2), p the softmax, T a transform of
    `zoo.corruptions.transforms`. Fine-tuning takes the same loss at the fixed mask.
    """

    begin: float = 0.5
    """When to cut, as a share of the training's steps."""
    warmup: float = 0.3
    """Share of the steps that train the dense network before the scores; 0 is enough from a dense run's weights."""
    score_lr: float = 0.01
    """Learning rate of the scores."""
    rho: float = 0.05
    """Length of the mask's perturbation over the length of the scores."""
    noise: float = 0.05
    """Half-width of the uniform noise on the scores."""
    percentile: float = 0.9
    """Percentile of a group's magnitudes above which scores start at 1."""
    stability: float = 1.0
    """Weight of the change of probabilities under a transform."""
    margin: float = 1.0
    """Weight of margins below the gap."""
    gap: float = 0.25
    """Required half difference between the two largest probabilities."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.warmup < self.begin or not self.score_lr > 0:
            raise UserError("csam trains scores from warmup to begin: give 0 <= warmup < begin, and score_lr > 0")
        if min(self.rho, self.noise, self.stability, self.margin) < 0 or not 0 < self.percentile <= 1:
            raise UserError("csam needs rho, noise, stability, margin >= 0 and 0 < percentile <= 1")

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, objective: Objective = cross_entropy
    ) -> dict[str, Tensor]:
        """Return the objective with the terms of stability, at the worst mask nearby while masks are learned."""
        masks = ChannelMasks.of(model)
        kind = list(TRANSFORMS)[int(torch.randint(len(TRANSFORMS), ()))]
        moved = TRANSFORMS[kind](images, drawn(images))
        if masks is None:
            return self._stable(model, images, moved, labels, objective)
        buffers = {buffer: buffer.clone() for buffer in model.buffers()}
        gradients = masks.gradients(self._stable(model, images, moved, labels, objective)["loss"])
        for buffer, value in buffers.items():
            buffer.copy_(value)
        length = torch.stack([p.detach().norm() for p in masks.scores.values()]).norm()
        steepness = torch.stack([x.norm() for x in gradients.values()]).norm().clamp_min(TINY)
        step = self.rho * length / steepness
        masks.shift = {g: step * x + self.noise * (2 * torch.rand_like(x) - 1) for g, x in gradients.items()}
        result = self._stable(model, images, moved, labels, objective)
        masks.shift = {}
        return result

    def _stable(
        self, model: nn.Module, images: Tensor, moved: Tensor, labels: Tensor, objective: Objective
    ) -> dict[str, Tensor]:
        result = objective(model, images, labels)
        p, of_moved = model(torch.cat([images, moved])).float().softmax(1).chunk(2)
        instability = (p - of_moved).abs().amax(1).mean()
        first, second = p.topk(2, 1).values.unbind(1)
        narrow = F.relu(self.gap - (first - second) / 2).mean()
        loss = result["loss"] + self.stability * instability + self.margin * narrow
        return result | {"loss": loss, "instability": instability, "narrow_margin": narrow}

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the search for masks and the cut."""
        from zoo.callbacks import MaskSearch  # a finished model needs no Lightning

        search = MaskSearch(
            compression(budget),
            self.begin,
            self.warmup,
            self.score_lr,
            "percentile",
            self.percentile,
            network=BACKBONE,
        )
        return [search]
