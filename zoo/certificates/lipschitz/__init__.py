"""An upper bound on a network's Lipschitz constant: the product bound, taken along its graph.

For a chain of layers the bound is the product of their Lipschitz constants (Szegedy et al., Intriguing
properties of neural networks, ICLR 2014, section 4.3); where branches meet, their bounds are added. It
holds for every pair of images, and is usually orders of magnitude above the network's true constant:
read it as a comparison of networks of one architecture.
"""

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from zoo.certificates import graph
from zoo.certificates.lipschitz.activation import Activation
from zoo.certificates.lipschitz.rules import RULES


@dataclass(frozen=True)
class LipschitzBound:
    """A bound L with ||f(x) - f(y)||_2 <= L ||x - y||_2, or why there is none.

    Attributes:
        value: L, of logits with respect to an image in [0, 1]; None if an operation has no known bound.
        obstacle: the operations without one, or ``""``.
    """

    value: float | None
    obstacle: str = ""


@torch.no_grad()
def lipschitz_bound(model: nn.Module, image_shape: tuple[int, int, int]) -> LipschitzBound:
    """Bound the Lipschitz constant of the map from one image to its logits, both in the 2-norm.

    Every linear and convolution layer counts with the spectral norm of its weight matrix, merged with the
    batch normalisation or the pointwise convolution after it; an operation counts with its constant of
    `zoo.certificates.lipschitz.rules`. Normalisation inside the model counts, with 1 / min(std).

    Args:
        model: in eval mode; give the deployed form, whose layers are plain.
        image_shape: (C, H, W).
    """
    try:
        program = graph.export(model, image_shape, known=RULES)
    except graph.Untraceable as error:
        return LipschitzBound(None, str(error))
    found = graph.walk(program, Activation((1, *image_shape), 1.0), _apply, _stand_in)
    if found.unknown:
        return LipschitzBound(None, ", ".join(found.unknown))
    if not isinstance(found.output, Activation):
        return LipschitzBound(None, graph.NOT_ONE_TENSOR)
    bound = found.output.bound
    return LipschitzBound(bound) if math.isfinite(bound) else LipschitzBound(None, "overflow")


def _apply(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Activation | None:
    if not graph.is_real(node.meta.get("val")):
        return None
    if node.target is operator.getitem:
        return Activation(_shape(node), args[0].scale, args[0].rows, args[0].axis)
    rule = RULES.get(graph.name(node))
    return None if rule is None else rule(_shape(node), **graph.arguments(node, args, kwargs))


def _stand_in(node: Node) -> Activation:
    return Activation(_shape(node), 1.0)


def _shape(node: Node) -> tuple[int, ...]:
    value = node.meta["val"]
    return tuple((value if isinstance(value, torch.Tensor) else value[0]).shape)
