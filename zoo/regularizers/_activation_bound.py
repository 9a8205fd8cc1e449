"""Bounds on how far each activation of a running network moves when its weights move."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.errors import UserError

LIPSCHITZ_ONE = {
    "dropout",
    "relu",
    "relu_",
    "relu6",
    "leaky_relu",
    "hardtanh",
    "clamp",
    "contiguous",
    "to",
    "float",
    "clone",
}
"""Operations with Lipschitz constant 1 in each entry, which move nothing further."""
POOLING = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"}
"""Operations whose result moves no further, in each entry, than the entries of the same channel."""
SLOPES = {"gelu": 1.13, "silu": 1.1, "silu_": 1.1, "hardswish": 1.5, "mish": 1.1, "elu": 1.0, "tanh": 1.0}
"""Largest slopes of other activations."""
SIZE = {"size", "dim", "__get__", "stride", "is_contiguous", "numel", "__len__"}
"""Operations that only read a shape or a type."""


@dataclass(frozen=True)
class ActivationBound:
    """A bound on how far the channels of an activation move, as a share of exp(scale).

    Attributes:
        carried: the part due to earlier layers' weights, (B, C), >= 0.
        fresh: the part due to this layer's own weights, (B, C); a BatchNorm after the layer is folded into its weights,
            so it does not stretch this part.
        scale: logarithm, (B, 1).
        weight: of the layer that computed it, if that is linear, with the movement of its input, (B, m).
    """

    carried: Tensor
    fresh: Tensor
    scale: Tensor
    weight: tuple[Tensor, Tensor] | None = None

    @property
    def total(self) -> Tensor:
        """Both parts together."""
        return self.carried + self.fresh

    def merged(self) -> "ActivationBound":
        """Return the sum as carried, scaled to a largest entry of 1 (gradients flow through the scale)."""
        total = self.total
        largest = total.amax(1, keepdim=True).clamp_min(torch.finfo(total.dtype).tiny)
        return ActivationBound(total / largest, torch.zeros_like(total), self.scale + largest.log())


class Movements(TorchFunctionMode):
    """While active, follows every activation that depends on a layer with weights.

    Args:
        eps: largest movement of each weight of linear and convolution layers.

    Attributes:
        norms: sum over the layers met so far of the largest row sum and column sum of |W|.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.norms = torch.zeros(())
        self._found: dict[int, tuple[Tensor, ActivationBound]] = {}  # keeps the tensor, so that its id is not reused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and bound how far its result moves."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name not in SIZE and (moved := self._follow(name, result, args, kwargs)):
            if result.ndim < 2 or result.shape[1] != moved.total.shape[1]:
                raise UserError(f"weight_robust has no bound for {name} of other dimensions than height and width")
            self._found[id(result)] = (result, moved)
        return result

    def _of(self, x: Any) -> ActivationBound | None:
        found = self._found.get(id(x))
        return found[1] if found else None

    def _follow(self, name: str, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActivationBound | None:
        if name == "conv2d":
            return self._convolution(result, *args, **kwargs)
        if name == "linear":
            return self._linear(result, *args, **kwargs)
        operands = [*args, *kwargs.values()]
        operands = [y for x in operands for y in (x if isinstance(x, list | tuple) else [x])]
        moving = [found for x in operands if (found := self._of(x))]
        if not moving:
            return None
        if name == "batch_norm":
            return self._batch_norm(moving[0], args, kwargs)
        rule = RULES.get(name)
        if rule is None or not isinstance(result, Tensor):
            raise UserError(f"weight_robust has no bound for {name}, which this architecture uses: choose a plain CNN")
        return rule(result, moving, [x for x in operands if self._of(x) is None])

    def _convolution(
        self, result: Tensor, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> ActivationBound:  # fmt: skip
        absolute = weight.abs()
        self._count(absolute.flatten(1).sum(1), absolute.unflatten(0, (groups, -1)).sum((1, 3, 4)))
        grouped = x.abs().unflatten(1, (groups, -1)).sum(2)
        ones = torch.ones(groups, 1, *weight.shape[2:], device=x.device, dtype=x.dtype)
        patches = F.conv2d(grouped, ones, None, stride, padding, dilation, groups).amax((2, 3))
        fresh = self.eps * patches.repeat_interleave(len(weight) // groups, 1)
        taps = absolute.sum((2, 3)).unflatten(0, (groups, -1))  # groups, out, in

        def apply(b: Tensor) -> Tensor:
            return torch.einsum("bgi,goi->bgo", b.unflatten(1, (groups, -1)), taps).flatten(1)

        return self._through(x, fresh, apply)

    def _linear(self, result: Tensor, x: Tensor, weight: Tensor, bias: Any = None) -> ActivationBound:
        if x.ndim > 2:
            raise UserError("weight_robust has no bound for linear layers on tokens: choose a plain CNN")
        absolute = weight.abs()
        self._count(absolute.sum(1), absolute.sum(0))
        sums = x.abs().sum(1, keepdim=True)
        moved = self._through(x, self.eps * sums.expand(-1, len(weight)), lambda b: b @ absolute.T)
        before = self._of(x)
        arrived = torch.zeros_like(x)
        if before is not None:
            arrived = before.total * (before.scale - moved.scale).exp()
        return ActivationBound(moved.carried, moved.fresh, moved.scale, (weight, arrived))

    def _through(self, x: Tensor, fresh: Tensor, apply: Callable[[Tensor], Tensor]) -> ActivationBound:
        before = self._of(x)
        if before is None:
            return ActivationBound(torch.zeros_like(fresh), fresh, torch.zeros_like(fresh[:, :1]))
        before = before.merged()
        return ActivationBound(apply(before.total), fresh * (-before.scale).exp(), before.scale)

    def _batch_norm(self, x: ActivationBound, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActivationBound:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given = dict(zip(names, args, strict=False)) | kwargs
        stretch = (given["running_var"] + given.get("eps", 1e-5)).rsqrt()
        if given.get("weight") is not None:
            stretch = stretch * given["weight"].abs()
        return ActivationBound(x.carried * stretch, x.fresh, x.scale)

    def _count(self, rows: Tensor, columns: Tensor) -> None:
        self.norms = self.norms.to(rows) + rows.max() + columns.max()

    def worst_margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the logarithm of the largest movement of a margin f_y - f_j over all j != y, (B,).

        Args:
            logits: (B, classes), the network's output while this was active.
            labels: (B,).
        """
        moved = self._of(logits)
        if moved is None:
            raise UserError("weight_robust: the logits depend on no linear or convolution layer")
        if moved.weight is None:
            pairs = moved.total + moved.total.gather(1, labels[:, None])
        else:
            weight, arrived = moved.weight
            apart = (weight[labels][:, None] - weight[None]).abs()
            pairs = torch.einsum("bcm,bm->bc", apart, arrived) + 2 * moved.fresh
        own = F.one_hot(labels, pairs.shape[1]).bool()
        return pairs.masked_fill(own, 0.0).amax(1).log() + moved.scale[:, 0]


def _still(result: Tensor, moving: list[ActivationBound], others: list[Any]) -> ActivationBound:
    return moving[0].merged()


def _sum(result: Tensor, moving: list[ActivationBound], others: list[Any]) -> ActivationBound:
    """Add the movements of the summands: residual branches."""
    parts = [part.merged() for part in moving]
    scale = torch.stack([part.scale for part in parts]).amax(0).detach()
    total = sum((part.carried * (part.scale - scale).exp() for part in parts), torch.zeros_like(parts[0].carried))
    return ActivationBound(total, torch.zeros_like(total), scale)


def _joined(result: Tensor, moving: list[ActivationBound], others: list[Any]) -> ActivationBound:
    parts = [part.merged() for part in moving]
    scale = torch.stack([part.scale for part in parts]).amax(0).detach()
    total = torch.cat([part.carried * (part.scale - scale).exp() for part in parts], 1)
    return ActivationBound(total, torch.zeros_like(total), scale)


def _flattened(result: Tensor, moving: list[ActivationBound], others: list[Any]) -> ActivationBound:
    x = moving[0].merged()
    if result.ndim > 2:
        return x
    carried = x.carried.repeat_interleave(result.shape[1] // x.carried.shape[1], 1)
    return ActivationBound(carried, torch.zeros_like(carried), x.scale)


def _scaled(result: Tensor, moving: list[ActivationBound], others: list[Any]) -> ActivationBound:
    """Scale by a number or by a tensor that no weight moves: a layer's scales, a mask on channels."""
    factor = next((x for x in others if isinstance(x, int | float | Tensor)), None)
    if factor is None:
        raise UserError("weight_robust has no bound for mul of two activations, which this architecture uses")
    x = moving[0].merged()
    largest = torch.as_tensor(factor, device=result.device).abs().expand(result.shape)
    largest = largest.flatten(2).amax(2) if result.ndim > 2 else largest
    return ActivationBound(x.carried * largest, x.fresh, x.scale)


Rule = Callable[[Tensor, list[ActivationBound], list[Any]], ActivationBound]
"""Maps an operation's result, its moving operands' bounds and its other operands to the result's bound."""


def _steep(slope: float) -> Rule:
    def rule(result: Tensor, moving: list[ActivationBound], others: list[Any]) -> ActivationBound:
        x = moving[0].merged()
        return ActivationBound(x.carried * slope, x.fresh, x.scale)

    return rule


RULES: dict[str, Rule] = {
    **dict.fromkeys(LIPSCHITZ_ONE | POOLING | {"mean"}, _still),
    **{name: _steep(slope) for name, slope in SLOPES.items()},
    **dict.fromkeys(("add", "add_", "__add__", "__iadd__", "__radd__", "sub", "__sub__"), _sum),
    **dict.fromkeys(("cat", "concat"), _joined),
    **dict.fromkeys(("flatten", "reshape", "view"), _flattened),
    **dict.fromkeys(("mul", "__mul__", "__rmul__"), _scaled),
}
