"""Interval bound propagation: bounds on a network's logits for all images in a box.

Each operation of the graph maps intervals to intervals that hold all its results; consecutive linear operations
count as one matrix (Gowal et al., On the effectiveness of interval bound propagation for training verifiably
robust models, arXiv 1810.12715, sections 3.1 and 3.2). A certified image is proved to be robust; an uncertified image
may still be robust, because intervals widen with every layer of a network that was not trained for them.

The proof is about the network in exact arithmetic: bounds are computed in float64 and not rounded outwards, and
the network itself runs in fp32. So the ends carry a relative error of some 1e-14, an fp32 logit one of some 1e-6.
"""

import operator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.func import vmap
from torch.fx import Node
from torch.utils import _pytree as pytree

from zoo.certificates import graph
from zoo.certificates.interval import layers
from zoo.certificates.interval.bounds import Interval
from zoo.certificates.interval.rules import RULES

__all__ = ["Interval", "IntervalNetwork"]


class IntervalNetwork:
    """A network that takes a box of images, all between a lower and an upper one, to a box of logits.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        image_shape: (C, H, W).

    Attributes:
        obstacle: why there are no bounds, such as the operations without a rule, or ``""``.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        self.obstacle = ""
        self._program: ExportedProgram | None = None
        try:
            self._program = graph.export(model, image_shape, known=RULES)
        except graph.Untraceable as error:
            self.obstacle = str(error)
            return
        like = next(model.parameters(), torch.empty(0))
        image = torch.zeros(1, *image_shape, dtype=torch.float64, device=like.device)
        found = graph.walk(self._program, Interval(image, image), _apply, _stand_in)
        if found.unknown:
            self.obstacle = f"no interval rule for {', '.join(found.unknown)}"
        elif not isinstance(found.output, Interval):
            self.obstacle = graph.NOT_ONE_TENSOR

    @torch.no_grad()
    def bounds(self, lower: Tensor, upper: Tensor, batch_size: int = 250) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds of all logits: from (N, C, H, W), N >= 1, to (N, K), float64.

        Args:
            lower: the smallest value of each pixel.
            upper: the largest.
            batch_size: images that are bounded at once.

        Raises:
            ValueError: there are no bounds, see `obstacle`.
        """

        def one(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
            logits = self._logits(low.double(), high.double())
            return logits.lower[0], logits.upper[0]

        found: tuple[Tensor, Tensor] = vmap(one, chunk_size=batch_size)(lower, upper)
        return found

    @torch.no_grad()
    def margins(self, images: Tensor, labels: Tensor, eps: float, batch_size: int = 250) -> Tensor:
        """Return lower bounds of logit_label - logit_other over the Linf ball of each image, within [0, 1].

        The differences are one more linear layer, which is merged with the network's last one if that is linear
        (elision of the last layer, section 3.2 of the paper).

        Args:
            images: in [0, 1], (N, C, H, W).
            labels: class indices (N,).
            eps: radius in pixel units, 0 or more.
            batch_size: images that are bounded at once.

        Returns:
            (N, K) in float64, infinite at the label itself.

        Raises:
            ValueError: there are no bounds, see `obstacle`.
        """

        def one(image: Tensor, label: Tensor) -> Tensor:
            image = image.double()
            logits = self._logits((image - eps).clamp_min(0), (image + eps).clamp_max(1))
            classes = torch.arange(logits.lower.shape[1], device=image.device)
            itself = (classes == label).double()
            differences = itself - torch.eye(len(classes), dtype=torch.float64, device=image.device)
            found = layers.linear(nn.functional.linear, logits, differences)
            assert found is not None
            return torch.where(classes == label, torch.inf, found.lower[0])

        return vmap(one, chunk_size=batch_size)(images, labels)

    def certified(self, images: Tensor, labels: Tensor, eps: float, batch_size: int = 250) -> Tensor:
        """Return for which images the label is proved to win within eps: bool (N,); arguments as in `margins`."""
        if not len(images):
            return torch.zeros(0, dtype=torch.bool, device=images.device)
        return (self.margins(images, labels, eps, batch_size) > 0).all(1)

    def _logits(self, lower: Tensor, upper: Tensor) -> Interval:
        """Bound one image's logits (1, K) from its pixels' bounds (C, H, W)."""
        if self._program is None or self.obstacle:
            raise ValueError(self.obstacle)
        found = graph.walk(self._program, Interval(lower[None], upper[None]), _apply, _stand_in).output
        assert isinstance(found, Interval)
        return found


def _apply(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not graph.is_real(node.meta.get("val")):
        return None
    if node.target is operator.getitem:
        return args[0][args[1]]
    rule = RULES.get(graph.name(node))
    if rule is None:
        return None
    given = pytree.tree_map(_double, graph.arguments(node, args, kwargs))
    return pytree.tree_map(_without_nan, rule(node.target, **given))


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _without_nan(x: Any) -> Any:
    """Widen an interval that overflowed (inf - inf) to all numbers; a clamp could hide the overflow."""
    if not isinstance(x, Interval):
        return x
    lower = x.lower.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    return replace(x, lower=lower, upper=x.upper.nan_to_num(torch.inf, torch.inf, -torch.inf))


def _stand_in(node: Node) -> Any:
    def zero(like: Tensor) -> Interval:
        zeros = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
        return Interval(zeros, zeros)

    return pytree.tree_map(zero, node.meta["val"])
