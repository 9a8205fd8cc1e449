"""Linear and convolution layers whose weight is a product U S V^T of rank r."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.linalg import condition_number, product_singular_values, random_stiefel
from zoo.lowrank.chain import FactorChain, filled

if TYPE_CHECKING:
    from jaxtyping import Float

Init = Literal["weights", "random"]
MERGE_ABOVE = 0.9
"""Factors with more than this share of the product's weights are multiplied out: two small layers are no faster."""
_compute_factors = True


@contextmanager
def uninitialized() -> Iterator[None]:
    """Build factorized layers without computing their factors, because saved weights are loaded into them next."""
    global _compute_factors
    before, _compute_factors = _compute_factors, False
    try:
        yield
    finally:
        _compute_factors = before


def computes_factors() -> bool:
    """Return whether a newly built factorized layer computes its factors; see `uninitialized`."""
    return _compute_factors


class Factorized(nn.Module, ABC):
    """A weight W = U S V^T in R^(n x m): U (n, r) and V (m, r), S (r, r), all trainable; a bias of n or none.

    Subclasses define n and m for a layer and apply the factors. ``weight`` multiplies
    the factors out, so that code which reads a layer's weight still works. If the layer's weight (or bias) is
    frozen, so are its factors (or bias).
    """

    out_features: int
    in_features: int
    paired: ClassVar[bool] = True
    """Whether column j of U and column j of V are one component, which is removed as a whole."""

    def __init__(self, weight: Float[Tensor, "n c *kernel"], bias: Float[Tensor, " n"] | None, rank: int) -> None:
        super().__init__()
        n, m = weight.shape[0], weight[0].numel()
        if not 1 <= rank <= min(n, m):
            raise ValueError(f"rank {rank} of a {n} x {m} weight: must be in 1..{min(n, m)}")
        self.weight_shape = weight.shape
        u, s, v = self.factor_shapes(weight.shape, rank)
        self.U = nn.Parameter(weight.new_empty(u), weight.requires_grad)
        self.S = nn.Parameter(weight.new_empty(s), weight.requires_grad)
        self.V = nn.Parameter(weight.new_empty(v), weight.requires_grad)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), bias.requires_grad)
        self._applied: tuple[Tensor, ...] | None = None

    @staticmethod
    def factor_shapes(shape: Sequence[int], rank: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of U, S and V for a weight of this shape."""
        n, m = shape[0], math.prod(shape[1:])
        return (n, rank), (rank, rank), (m, rank)

    def ranks_at(self, rank: int) -> tuple[int, int]:
        """Return the numbers of columns of U and of V at a rank."""
        u, _, v = self.factor_shapes(self.weight_shape, rank)
        return u[1], v[1]

    @property
    def rank(self) -> int:
        """The number r of columns of U and V."""
        return self.S.shape[0]

    @property
    def core_matrix(self) -> Float[Tensor, "_ r"]:
        """S as a matrix of r columns, whose singular values are the weight's if U and V are orthonormal."""
        return self.S

    def as_core(self, matrix: Float[Tensor, "_ r"]) -> Float[Tensor, "r s ..."]:
        """Return the S whose `core_matrix` this is."""
        return matrix

    @property
    def weight(self) -> Float[Tensor, "n c *kernel"]:
        """The product U S V^T in the shape of the layer it replaced."""
        return ((self.U @ self.S) @ self.V.T).reshape(self.weight_shape)

    @property
    def pays(self) -> bool:
        """Whether the deployed factors hold clearly fewer weights than their product."""
        return self.deployed_weights <= MERGE_ABOVE * self.weight_shape.numel()

    @property
    def deployed_weights(self) -> int:
        """The number of weights in U S and V^T."""
        return self.rank * (len(self.U) + len(self.V))

    @property
    def trains(self) -> bool:
        """Whether U, S and V all take gradients."""
        return all(p.requires_grad for p in (self.U, self.S, self.V))

    @property
    def is_frozen(self) -> bool:
        """Whether none of U, S and V takes gradients."""
        return not any(p.requires_grad for p in (self.U, self.S, self.V))

    def applied(self) -> tuple[Tensor, ...]:
        """Return the weights that a forward pass applies, of one layer or of two; see `applied_once`."""
        if self._applied is None or torch.compiler.is_compiling():
            return self._weights()
        return self._applied

    @abstractmethod
    def _weights(self) -> tuple[Tensor, ...]:
        """Compute the weights that a forward pass applies."""

    @abstractmethod
    def fold(self) -> nn.Module:
        """Return the deployed form: two plain layers, or one if the factors do not pay.

        Each is frozen if all of its factors are.
        """

    @torch.no_grad()
    def initialize(self, weight: Float[Tensor, "n c *kernel"], init: Init) -> None:
        """Set the factors from a dense weight.

        Args:
            weight: the dense weight.
            init: ``"weights"``: its truncated SVD (the nearest product of rank r). ``"random"``: U and V
                uniform on the Stiefel manifold, S a multiple of I with the weight's Frobenius norm.
        """
        if not computes_factors():
            return
        dense = weight.detach().flatten(1).float()
        r = self.rank
        if init == "weights":
            u, s, vh = torch.linalg.svd(dense, full_matrices=False)
            u, s, v = u[:, :r], torch.diag(s[:r]), vh[:r].T
        else:
            u, v = random_stiefel(dense.shape[0], r), random_stiefel(dense.shape[1], r)
            s = torch.eye(r) * (torch.linalg.matrix_norm(dense).cpu() / r**0.5)
        self.U.copy_(u)
        self.S.copy_(s)
        self.V.copy_(v)

    @torch.no_grad()
    def singular_values(self) -> Float[Tensor, " r"]:
        """Return the r singular values of U S V^T, descending; U and V need not be orthonormal."""
        return product_singular_values(self.U, self.S, self.V)

    @torch.no_grad()
    def energies(self) -> tuple[Float[Tensor, " r"], Float[Tensor, " s"]]:
        """Return the cost in ||W - W'||_F^2 of cutting each column of U and of V, in the singular basis; descending.

        Columns that form one component count once, with U.
        """
        squares = self.S.diagonal().square()
        return squares, torch.zeros_like(squares)

    def condition_number(self) -> float:
        """Return the largest over the smallest of the r singular values."""
        return condition_number(self.singular_values()).item()

    def extra_repr(self) -> str:
        """Describe the factorization."""
        n, m = self.U.shape[0], self.V.shape[0]
        return f"{n} x {m}, rank={self.rank}, bias={self.bias is not None}"


class FactorizedLinear(Factorized):
    """A linear layer with weight U S V^T: r outputs first, then n.

    Args:
        linear: the layer to replace; its weight initializes the factors, its bias is copied.
        rank: r, 1 to min(n, m).
        init: see `Factorized.initialize`.
    """

    def __init__(self, linear: nn.Linear, rank: int, init: Init = "weights") -> None:
        super().__init__(linear.weight, linear.bias, rank)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.initialize(linear.weight, init)

    def forward(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """Apply the layer."""
        *first, last = self.applied()
        return F.linear(F.linear(x, *first) if first else x, last, self.bias)

    def _weights(self) -> tuple[Tensor, ...]:
        return (self.V.T, self.U @ self.S) if self.pays else (self.weight,)

    @torch.enable_grad()
    def fold(self) -> nn.Module:
        """Return the deployed form: two linear layers with S merged into the second, or one dense layer."""
        if not self.pays:
            return filled(nn.Linear(self.in_features, self.out_features, self.bias is not None), self.weight, self.bias)
        reduce = nn.Linear(self.in_features, self.rank, bias=False)
        expand = nn.Linear(self.rank, self.out_features, self.bias is not None)
        return FactorChain(filled(reduce, self.V.T, None), filled(expand, self.U @ self.S, self.bias))


class FactorizedConv2d(Factorized):
    """A convolution with weight U S V^T (rows: output channels): k x k to r channels, then 1 x 1 to n.

    V's rows are ordered (input channel, row, column), as in ``weight.flatten(1)``.

    Args:
        conv: the ungrouped convolution to replace; its weight initializes the factors, its bias is copied.
        rank: r, 1 to min(n, m) with m = in_channels * kh * kw.
        init: see `Factorized.initialize`.

    Raises:
        ValueError: the convolution is grouped or pads with anything but zeros.
    """

    def __init__(self, conv: nn.Conv2d, rank: int, init: Init = "weights") -> None:
        if conv.groups != 1 or conv.padding_mode != "zeros":
            raise ValueError("only ungrouped convolutions with zero padding can be factorized")
        super().__init__(conv.weight, conv.bias, rank)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.padding, self.dilation, self.groups = conv.padding, conv.dilation, 1
        self.initialize(conv.weight, init)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch n h_out w_out"]:
        """Apply the layer."""
        kernels = self.applied()
        for i, kernel in enumerate(kernels):
            bias = self.bias if i == len(kernels) - 1 else None
            x = F.conv2d(x, kernel, bias, **self._geometry(i, len(kernels)))
        return x

    def _geometry(self, i: int, kernels: int) -> dict[str, Any]:
        """Return stride and padding of kernel i: the layer's own belong to the last kernel but one, or the only one."""
        if i != max(kernels - 2, 0):
            return {}
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def _weights(self) -> tuple[Tensor, ...]:
        if not self.pays:
            return (self.weight,)
        return self.V.T.reshape(self.rank, *self.weight_shape[1:]), (self.U @ self.S)[:, :, None, None]

    @torch.enable_grad()
    def fold(self) -> nn.Module:
        """Return the deployed form: a convolution for each kernel that a forward pass applies."""
        kernels, layers = self._weights(), []
        for i, kernel in enumerate(kernels):
            n, m, kh, kw = kernel.shape
            bias = self.bias if i == len(kernels) - 1 else None
            conv = nn.Conv2d(m, n, (kh, kw), bias=bias is not None, **self._geometry(i, len(kernels)))
            layers.append(filled(conv, kernel, bias))
        return FactorChain(*layers) if len(layers) > 1 else layers[0]


def factorized_layers(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, Factorized]]:
    """Yield the name and module of each factorized layer, in the model's order; names begin with the model's own."""
    for name, module in model.named_modules(prefix=prefix):
        if isinstance(module, Factorized):
            yield name, module
