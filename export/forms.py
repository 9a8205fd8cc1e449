"""The forms that a factorized layer may have in an exported file: all compute the same function.

A kernel W in R^(n x c x h x w) is a matrix in three ways, and a factorization of each is two layers:

- rows n, columns (c, h, w): a convolution h x w to r channels, then 1 x 1 (how zoo trains);
- rows (n, h, w), columns c: 1 x 1 to r channels, then h x w;
- rows (n, w), columns (c, h): h x 1 to r channels, then 1 x w.

Each is exact at the rank that W has in that unfolding. A W of rank r in the first has in general rank min(c, r h w) in
the second and min(r h, ...) in the third, where two layers cost more than those of the first; they are candidates only
where the rank is so much lower that they cost less (dead input channels, filters that share a subspace). The first form
at a rank padded with zeros, and one dense layer, are always exact.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.layers import GEOMETRY, FactorPair

Split = Literal["kxk to 1x1", "1x1 to kxk", "kx1 to 1xk", "dense"]
"""How a layer is written: as two layers in one of three ways, or as one."""
DROP = 1e-6
"""Singular values below this share of the largest one are rounding of the fp32 factors."""
Two = tuple[int, int]


@dataclass(frozen=True)
class Form:
    """One way to write a layer.

    Attributes:
        split: into which two layers.
        rank: channels between them, zeros included; 0 for one dense layer.
    """

    split: Split
    rank: int = 0

    def __str__(self) -> str:
        """Return it in words, such as ``kxk to 1x1, rank 48``."""
        return f"{self.split}, rank {self.rank}" if self.rank else self.split


DENSE = Form("dense")


@dataclass(frozen=True)
class Op:
    """One convolution (or, with ``kernel`` 1 x 1 on a row of pixels, one linear layer) of a form."""

    inputs: int
    outputs: int
    kernel: Two = (1, 1)
    stride: Two = (1, 1)
    padding: Two = (0, 0)
    dilation: Two = (1, 1)

    def output_size(self, size: Two) -> Two:
        """Return the height and width that come out of a map of this size."""
        h, w = (
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        )
        return h, w


@dataclass(frozen=True)
class Geometry:
    """A layer's problem: what it maps to what, for one image. Layers of equal geometry are equally fast.

    Attributes:
        kind: ``conv``, or ``linear``, which is then 1 x 1 on a map of 1 x ``size[1]`` vectors.
        op: the layer as one operator.
        size: height and width of the map that comes in.
    """

    kind: Literal["conv", "linear"]
    op: Op
    size: Two

    def ops(self, form: Form) -> list[Op]:
        """Return the operators of a form, in order."""
        o, r = self.op, form.rank
        (kh, kw), (sh, sw), (ph, pw), (dh, dw) = o.kernel, o.stride, o.padding, o.dilation
        if form.split == "dense":
            return [o]
        if form.split == "kxk to 1x1":
            return [Op(o.inputs, r, o.kernel, o.stride, o.padding, o.dilation), Op(r, o.outputs)]
        if form.split == "1x1 to kxk":
            return [Op(o.inputs, r), Op(r, o.outputs, o.kernel, o.stride, o.padding, o.dilation)]
        first = Op(o.inputs, r, (kh, 1), (sh, 1), (ph, 0), (dh, 1))
        return [first, Op(r, o.outputs, (1, kw), (1, sw), (0, pw), (1, dw))]

    def macs(self, form: Form) -> int:
        """Return the multiply-accumulates of a form for one image."""
        total, size = 0, self.size
        for op in self.ops(form):
            size = op.output_size(size)
            total += size[0] * size[1] * op.outputs * op.inputs * op.kernel[0] * op.kernel[1]
        return total

    def weights(self, form: Form) -> int:
        """Return the weights that a form holds."""
        return sum(op.inputs * op.outputs * op.kernel[0] * op.kernel[1] for op in self.ops(form))


def geometry(pair: FactorPair, input_shape: tuple[int, ...]) -> Geometry | None:
    """Return the problem that a pair solves, or None where its forms are not known here.

    Args:
        pair: two layers that stand for one.
        input_shape: of what it was given for one image, (1, C, H, W) or (1, ..., C).
    """
    first, second = pair[0], pair[1]
    if isinstance(first, nn.Linear):
        tokens = 1
        for extent in input_shape[:-1]:
            tokens *= extent
        return Geometry("linear", Op(first.in_features, pair[1].out_features), (1, tokens))  # type: ignore[arg-type]
    if not isinstance(first, nn.Conv2d) or not isinstance(second, nn.Conv2d):
        return None
    padding = first.padding
    if isinstance(padding, str) or second.kernel_size != (1, 1) or len(input_shape) != 4:
        return None
    op = Op(
        first.in_channels,
        second.out_channels,
        _two(first.kernel_size),
        _two(first.stride),
        _two(padding),
        _two(first.dilation),
    )
    return Geometry("conv", op, (input_shape[2], input_shape[3]))


def _two(values: tuple[int, ...]) -> Two:
    return values[0], values[1]


def trained_form(pair: FactorPair) -> Form:
    """Return the form that a pair has."""
    return Form("kxk to 1x1", pair.get_parameter("0.weight").shape[0])


def candidates(pair: FactorPair, problem: Geometry, block: int) -> list[Form]:
    """List the forms in which a pair can be written: as it is first, dense last.

    Args:
        pair: the pair.
        problem: its geometry.
        block: channels that the target computes at once; ranks are padded up to a multiple.
    """
    trained = trained_form(pair)
    found = [trained]
    padded = Form(trained.split, -(-trained.rank // block) * block)
    if problem.weights(padded) < problem.weights(DENSE):
        found.append(padded)
    if problem.op.kernel != (1, 1):
        weight = pair.weight
        for split in ("1x1 to kxk", "kx1 to 1xk"):
            other = Form(split, _numerical_rank(_unfold(weight, split)))
            if problem.macs(other) < problem.macs(trained):
                found.append(other)
    return list(dict.fromkeys([*found, DENSE]))


def _unfold(weight: Tensor, split: Split) -> Tensor:
    """Return a kernel (n, c, h, w) as the matrix, in float64, whose factors are the two layers of a split."""
    order = {"kxk to 1x1": (0, 1, 2, 3), "1x1 to kxk": (0, 2, 3, 1), "kx1 to 1xk": (0, 3, 1, 2)}[split]
    rows = {"kxk to 1x1": 1, "1x1 to kxk": 3, "kx1 to 1xk": 2}[split]
    turned = weight.detach().double().permute(order)
    return turned.flatten(0, rows - 1).flatten(1)


def _numerical_rank(matrix: Tensor) -> int:
    # Of the smaller Gram matrix: its eigenvalues are the squares of the singular values.
    small = matrix if matrix.shape[0] < matrix.shape[1] else matrix.T
    values = torch.linalg.eigvalsh(small @ small.T)
    return max(1, int((values > DROP**2 * values[-1]).sum()))


@torch.no_grad()
def write_as(pair: FactorPair, form: Form) -> nn.Module:
    """Return plain layers that compute what a pair computes, in a given form.

    A model that reads ``weight``, ``bias`` or sizes off its layers must keep its pair: see `zoo.export.choice`.

    Args:
        pair: the pair; it is left as it is.
        form: one of its `candidates`.
    """
    problem = geometry(pair, (1, 1, 1, 1))  # the map's size makes no difference to the layers
    if problem is None or form == trained_form(pair):
        return pair
    ops = problem.ops(form)
    if form.split == "dense":
        weights = [pair.weight]
    elif form.split == "kxk to 1x1":
        weights = [pair.get_parameter("0.weight"), pair.get_parameter("1.weight")]
    else:
        weights = _refactored(pair.weight, form)
    layers = [_layer(problem.kind, op, last=i == len(ops) - 1, like=pair) for i, op in enumerate(ops)]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight.zero_()
        n, m = weight.shape[:2]
        layer.weight[:n, :m] = weight.to(layer.weight)
    if pair.bias is not None:
        assert layers[-1].bias is not None
        layers[-1].bias.copy_(pair.bias)
    if len(layers) == 1:
        return layers[0].eval()
    both = FactorPair(*layers).eval()
    for name in GEOMETRY:
        if hasattr(pair, name):
            setattr(both, name, getattr(pair, name))
    return both


def _refactored(weight: Tensor, form: Form) -> list[Tensor]:
    n, c, kh, kw = weight.shape
    u, s, vh = torch.linalg.svd(_unfold(weight, form.split), full_matrices=False)
    left, right = u[:, : form.rank] * s[: form.rank], vh[: form.rank]
    if form.split == "1x1 to kxk":
        return [right[:, :, None, None], left.reshape(n, kh, kw, form.rank).permute(0, 3, 1, 2)]
    return [right.reshape(form.rank, c, kh, 1), left.reshape(n, kw, form.rank).permute(0, 2, 1)[:, :, None, :]]


def _layer(kind: str, op: Op, last: bool, like: FactorPair) -> nn.Conv2d | nn.Linear:
    bias = last and like.bias is not None
    device, dtype = like.get_parameter("0.weight").device, like.get_parameter("0.weight").dtype
    if kind == "linear":
        return nn.Linear(op.inputs, op.outputs, bias, device=device, dtype=dtype)
    return nn.Conv2d(
        op.inputs,
        op.outputs,
        op.kernel,
        op.stride,
        op.padding,
        op.dilation,
        bias=bias,
        device=device,
        dtype=dtype,
    )
