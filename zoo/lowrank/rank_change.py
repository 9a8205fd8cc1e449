"""Change the basis or the rank of a factorized layer during training, with all state that follows its factors."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.linalg.basis import BasisChange, Role, embedding, singular_basis, slicing
from zoo.linalg.stiefel import complement, full_precision
from zoo.lowrank.layers import Factorized
from zoo.runtime.memory_format import empty_as
from zoo.runtime.optimizer_state import fill_new_, follow_, follow_basis, refuse_unknown_state

if TYPE_CHECKING:
    from jaxtyping import Float


def change_basis_(
    layer: Factorized, change: BasisChange, optimizers: Iterable[Optimizer] = (), averages: Iterable[Factorized] = ()
) -> None:
    """Change the basis of a layer in place, or its rank if there are fewer columns.

    The parameters stay the same objects, so optimizers keep training them; gradients are dropped.

    Args:
        layer: to change.
        change: of its U, S and V.
        optimizers: their state of these parameters changes too: momenta like gradients, second moments like variances.
        averages: copies of the layer that hold averages of its factors, to be changed in the same way.

    Raises:
        UserError: an optimizer has state of them that cannot follow.
    """
    optimizers, layers = list(optimizers), [layer, *averages]
    refuse_unknown_state(optimizers, (layer.U, layer.S, layer.V))
    with full_precision(layer.S.device):  # otherwise U and V are not orthonormal afterwards
        for role in get_args(Role):
            parameter = getattr(layer, role)
            follow_(optimizers, parameter, partial(_moved, role, change))
            for same in layers:
                factor = getattr(same, role)
                # An average may be on another device than the layer.
                factor.data = _as_before(factor.data, change.factor(role, factor.data.to(parameter.device)))
                factor.grad = None


def _moved(role: Role, change: BasisChange, key: str, value: Tensor) -> Tensor:
    return _as_before(
        value, follow_basis(key, value, partial(change.gradient, role), partial(change.second_moment, role))
    )


def _as_before(old: Tensor, new: Tensor) -> Tensor:
    return empty_as(old, new.shape).copy_(new)


def diagonalize_(layer: Factorized, optimizers: Iterable[Optimizer] = (), averages: Iterable[Factorized] = ()) -> None:
    """Change a layer to the basis of its singular vectors, see `singular_basis`; the product does not change."""
    change_basis_(layer, singular_basis(layer.U.data, layer.S.data, layer.V.data), optimizers, averages)


@torch.no_grad()
def augment_(
    layer: Factorized,
    gradient_u: Float[Tensor, "n r"],
    gradient_v: Float[Tensor, "m s"],
    optimizers: Iterable[Optimizer] = (),
    averages: Iterable[Factorized] = (),
) -> None:
    """Add up to r columns, spanned by gradients, to a layer with orthonormal U and V; the product does not change.

    U becomes an orthonormal basis of [U | gradient], and so does V; S gets zero rows and columns. This is the basis
    augmentation of dynamical low-rank training (RobustDLRT, arXiv 2505.08022, section 3).

    Args:
        layer: to augment; at most to its full rank.
        gradient_u: of the loss in U.
        gradient_v: of the loss in V.
        optimizers: see `change_basis_`; for the new columns they hold no gradients, and the others' mean second moment.
        averages: see `change_basis_`.
    """
    u, v, (r, s) = layer.U.data, layer.V.data, layer.S.shape[:2]
    rows = len(u)
    wide_r, wide_s = layer.ranks_at(min(2 * r, rows, layer.weight_shape.numel() // rows))
    with full_precision(u.device):
        new_u, new_v = complement(u, gradient_u, wide_r - r), complement(v, gradient_v, wide_s - s)
    optimizers, averages = list(optimizers), list(averages)
    change_basis_(layer, embedding(layer.S.data, wide_r - r, wide_s - s), optimizers, averages)
    for same in (layer, *averages):
        same.U.data[:, r:], same.V.data[:, s:] = new_u.to(same.U.device), new_v.to(same.V.device)
    whole, left, right = slice(None), slice(r), slice(s)
    for factor, old in ((layer.U, (whole, left)), (layer.S, (left, right)), (layer.V, (whole, right))):
        fill_new_(optimizers, factor, old)


def truncate_(
    layer: Factorized, rank: int, optimizers: Iterable[Optimizer] = (), averages: Iterable[Factorized] = ()
) -> None:
    """Keep the leading components of a layer that is in its singular basis (see `diagonalize_`)."""
    kept = (torch.arange(size, device=layer.S.device) for size in layer.ranks_at(rank))
    change_basis_(layer, slicing(layer.S.data, *kept), optimizers, averages)
