"""Module robust criticality: how much robustness depends on each layer's weights.

Zhu, Hu, Wang, Xie: Improving generalization of adversarial training via robust critical fine-tuning, ICCV 2023,
arXiv 2308.02533, section 3. MRS-guided pruning (arXiv 2410.15176), of which only the abstract was available, is
modelled on it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.lowrank.chain import FactorChain
from zoo.sensitivity.probe_context import ProbeContext
from zoo.sensitivity.weight_ascent import ascend, movable

if TYPE_CHECKING:
    from jaxtyping import Float


def weight_modules(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the weights of each linear and convolution layer by its name; a factorized layer is one module."""
    found: dict[str, list[nn.Parameter]] = {}
    inside = {id(child) for chain in model.modules() if isinstance(chain, FactorChain) for child in chain.children()}
    for name, module in model.named_modules():
        if isinstance(module, FactorChain) or (isinstance(module, nn.Linear | nn.Conv2d) and id(module) not in inside):
            found[name] = [p for p in module.parameters() if p.ndim > 1]
    return found


def robust_criticality(
    context: ProbeContext,
    radius: float = 0.1,
    steps: int = 10,
    say: Callable[[str], None] = lambda name: None,
    modules: dict[str, list[nn.Parameter]] | None = None,
) -> dict[str, float]:
    """Measure how much the mean cross-entropy on adversarial images grows when one module moves in its worst direction.

    Adversarial images are made once, at the original weights; then each module alone climbs, within
    ||dW||_F <= radius ||W||_F for each of its weights. The paper climbs by epochs of SGD and keeps the largest
    loss met; this climbs by normalized gradients over all images, and takes the loss at its end.

    Args:
        context: the deployed network, and images that it was not trained on (not test images if the result decides
            what is trained or pruned).
        radius: relative; 0.1 in the paper.
        steps: of the ascent.
        say: called with each module's name before it is measured.
        modules: weights that climb together, by a name; None: those of each layer, see `weight_modules`.

    Returns:
        The growth by module, >= 0, in the model's order.
    """
    images = context.adversarial
    before = _loss(context, images)
    grown = {}
    for name, weights in (modules or weight_modules(context.model)).items():
        say(name)
        with movable(context.model):
            ascend(context, weights, images, radius, 0.0, steps)
            grown[name] = max(0.0, _loss(context, images) - before)
    return grown


def ratio_offsets(sensitivities: dict[str, float], weight: float = 0.4) -> dict[str, float]:
    """Return the offsets to subtract from the share that each part of a network loses; negative ones raise it.

    With s the sensitivity, t = log(1 + s) scaled to 0..1 over the parts: weight * (t - mean of t). This project's
    definition: the formula of arXiv 2410.15176 was not available.

    Args:
        sensitivities: by part, >= 0.
        weight: 0 makes all shares equal.
    """
    logs = {part: math.log1p(s) for part, s in sensitivities.items()}
    low, high = min(logs.values()), max(logs.values())
    scaled = {part: (x - low) / (high - low) if high > low else 0.0 for part, x in logs.items()}
    mean = sum(scaled.values()) / len(scaled)
    return {part: weight * (x - mean) for part, x in scaled.items()}


@torch.no_grad()
def _loss(context: ProbeContext, images: Float[Tensor, "batch c h w"]) -> float:
    batches = zip(images.split(context.batch_size), context.labels.split(context.batch_size), strict=True)
    total = sum(F.cross_entropy(context.model(x).float(), y, reduction="sum").item() for x, y in batches)
    return total / len(images)
