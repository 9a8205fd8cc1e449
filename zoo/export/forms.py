"""The forms that a factorized layer may have in an exported file: all compute the same function.

A kernel W in R^(n x c x h x w) is a matrix in three ways, and a factorization of each is two layers:

- rows n, columns (c, h, w): a convolution h x w to r channels, then 1 x 1 (how most methods train);
- rows (n, h, w), columns c: 1 x 1 to r channels, then h x w;
- rows (n, w), columns (c, h): h x 1 to r channels, then 1 x w.

Each is exact at the rank that W has in that unfolding. A W of rank r in the first has in general rank min(c, r h w) in
the second and min(r h, ...) in the third, where two layers cost more than those of the first; they are candidates only
where the rank is so much lower that they cost less (dead input channels, filters that share a subspace). The first form
at a rank padded with zeros, and one dense layer, are always exact.

A kernel in Tucker-2 form, 1 x 1 to s channels, h x w to r and 1 x 1, has rank r in the first unfolding and s in the
second: multiplying out its last or its first layer gives these forms. They cost more products, but an operator less.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.lowrank.chain import GEOMETRY, FactorChain

Split = Literal["kxk to 1x1", "1x1 to kxk", "kx1 to 1xk", "1x1 to kxk to 1x1", "dense"]
"""The ways to write a layer: as two layers in one of three ways, as three, or as one."""
TWO_LAYERS: tuple[Split, ...] = ("kxk to 1x1", "1x1 to kxk", "kx1 to 1xk")
DROP = 1e-6
"""Singular values below this share of the largest one are rounding of the fp32 factors."""
Two = tuple[int, int]


@dataclass(frozen=True)
class Form:
    """One way to write a layer.

    Attributes:
        split: into which layers.
        rank: channels between them, before the last, zeros included; 0 for one dense layer.
        inner: with three layers, channels after the first, zeros included; otherwise 0.
    """

    split: Split
    rank: int = 0
    inner: int = 0

    def __str__(self) -> str:
        """Return the form in words, such as ``kxk to 1x1, rank 48``."""
        if self.inner:
            return f"{self.split}, ranks {self.inner} and {self.rank}"
        return f"{self.split}, rank {self.rank}" if self.rank else self.split

    def padded(self, block: int) -> "Form":
        """Return the form with its ranks at multiples of a block."""
        return Form(self.split, -(-self.rank // block) * block, -(-self.inner // block) * block)


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
    """The geometry of a layer: its input and output for one image. Layers of equal geometry are equally fast.

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
        if form.split == "1x1 to kxk to 1x1":
            core = Op(form.inner, r, o.kernel, o.stride, o.padding, o.dilation)
            return [Op(o.inputs, form.inner), core, Op(r, o.outputs)]
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


def geometry(chain: FactorChain, input_shape: tuple[int, ...]) -> Geometry | None:
    """Return the geometry of a chain, or None if its forms are not known here.

    Args:
        chain: consecutive layers that replace one.
        input_shape: of its input for one image, (1, C, H, W) or (1, ..., C).
    """
    layers = list(chain)
    first, core, last = layers[0], layers[-2], layers[-1]
    if isinstance(first, nn.Linear) and isinstance(last, nn.Linear):
        tokens = 1
        for extent in input_shape[:-1]:
            tokens *= extent
        return Geometry("linear", Op(first.in_features, last.out_features), (1, tokens))
    if not (isinstance(first, nn.Conv2d) and isinstance(core, nn.Conv2d) and isinstance(last, nn.Conv2d)):
        return None
    padding = core.padding
    if isinstance(padding, str) or len(input_shape) != 4:
        return None
    if any(x.kernel_size != (1, 1) for x in layers if x is not core):
        return None
    op = Op(
        first.in_channels,
        last.out_channels,
        _two(core.kernel_size),
        _two(core.stride),
        _two(padding),
        _two(core.dilation),
    )
    return Geometry("conv", op, (input_shape[2], input_shape[3]))


def _two(values: tuple[int, ...]) -> Two:
    return values[0], values[1]


def trained_form(chain: FactorChain) -> Form:
    """Return the form that a chain has."""
    *first, core, _ = (chain.get_parameter(f"{i}.weight") for i in range(len(chain)))
    return Form("1x1 to kxk to 1x1", *core.shape[:2]) if first else Form("kxk to 1x1", core.shape[0])


def candidates(chain: FactorChain, problem: Geometry, block: int) -> list[Form]:
    """List the forms in which a chain can be written: its own form first, dense last.

    Args:
        chain: the chain.
        problem: its geometry.
        block: channels that the target computes at once; ranks are padded up to a multiple.
    """
    trained = trained_form(chain)
    # Two layers may be faster than three, though they have more products; than two others only with fewer.
    most = problem.macs(DENSE if trained.inner else trained)
    found = [trained]
    if problem.op.kernel != (1, 1):
        weight = chain.weight
        for split in (x for x in TWO_LAYERS if x != trained.split):
            other = Form(split, _numerical_rank(_unfold(weight, split)))
            if problem.macs(other) < most:
                found.append(other)
    padded = [x.padded(block) for x in found if x == trained or trained.inner]
    found[1:1] = [x for x in padded if problem.weights(x) < problem.weights(DENSE)]
    return list(dict.fromkeys([*found, DENSE]))


def _unfold(weight: Tensor, split: Split) -> Tensor:
    """Return a kernel (n, c, h, w) as the matrix, in float64, whose factors are the two layers of a split."""
    order = {"kxk to 1x1": (0, 1, 2, 3), "1x1 to kxk": (0, 2, 3, 1), "kx1 to 1xk": (0, 3, 1, 2)}[split]
    rows = {"kxk to 1x1": 1, "1x1 to kxk": 3, "kx1 to 1xk": 2}[split]
    turned = weight.detach().double().permute(order)
    return turned.flatten(0, rows - 1).flatten(1)


def _numerical_rank(matrix: Tensor) -> int:
    # Use the smaller Gram matrix: its eigenvalues are the squares of the singular values.
    small = matrix if matrix.shape[0] < matrix.shape[1] else matrix.T
    values = torch.linalg.eigvalsh(small @ small.T)
    return max(1, int((values > DROP**2 * values[-1]).sum()))


@torch.no_grad()
def write_as(chain: FactorChain, form: Form) -> nn.Module:
    """Return plain layers that compute the function of a chain, in a given form.

    A model that reads ``weight``, ``bias`` or sizes off its layers must keep its chain: see `zoo.export.choice`.

    Args:
        chain: the chain; it is not changed.
        form: one of its `candidates`.
    """
    problem = geometry(chain, (1, 1, 1, 1))  # the map's size makes no difference to the layers
    trained = trained_form(chain)
    if problem is None or form == trained:
        return chain
    ops = problem.ops(form)
    if form.split == "dense":
        weights = [chain.weight]
    elif form.split == trained.split:
        weights = [chain.get_parameter(f"{i}.weight") for i in range(len(chain))]
    else:
        weights = _refactored(chain.weight, form)
    layers = [_layer(problem.kind, op, last=i == len(ops) - 1, like=chain) for i, op in enumerate(ops)]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight.zero_()
        n, m = weight.shape[:2]
        layer.weight[:n, :m] = weight.to(layer.weight)
    if chain.bias is not None:
        assert layers[-1].bias is not None
        layers[-1].bias.copy_(chain.bias)
    if len(layers) == 1:
        return layers[0].eval()
    written = FactorChain(*layers).eval()
    for name in GEOMETRY:
        if hasattr(chain, name):
            setattr(written, name, getattr(chain, name))
    return written


def _refactored(weight: Tensor, form: Form) -> list[Tensor]:
    n, c, kh, kw = weight.shape
    u, s, vh = torch.linalg.svd(_unfold(weight, form.split), full_matrices=False)
    left, right = u[:, : form.rank] * s[: form.rank], vh[: form.rank]
    if form.split == "kxk to 1x1":
        return [right.reshape(-1, c, kh, kw), left[:, :, None, None]]
    if form.split == "1x1 to kxk":
        return [right[:, :, None, None], left.reshape(n, kh, kw, form.rank).permute(0, 3, 1, 2)]
    return [right.reshape(form.rank, c, kh, 1), left.reshape(n, kw, form.rank).permute(0, 2, 1)[:, :, None, :]]


def _layer(kind: str, op: Op, last: bool, like: FactorChain) -> nn.Conv2d | nn.Linear:
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
