"""Optimizer state of parameters whose shape or basis changes during training."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from zoo.errors import UserError

DIRECTIONS = (
    *("momentum_buffer", "exp_avg", "momentum", "grad_avg"),  # of SGD, Adam and its kin, SGDP, centred RMSprop
    *("exp_avg_diff", "neg_pre_grad", "last_grad"),  # of Adan and MARS
)
"""State that is a gradient, or an average of some."""
SECOND_MOMENTS = (
    *("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta"),  # Adam and its kin, RMSprop, Adagrad, Adadelta
    *("exp_avg_var", "max_exp_avg_var", "exp_hessian_diag_sq"),  # AdaBelief, AdaHessian
    *("variance", "row_var", "col_var", "exp_avg_sq_r", "exp_avg_sq_c"),  # Adafactor if nothing is factored
)
"""State that holds squares of gradients, or their variances."""
MAGNITUDES = ("exp_inf",)
"""State that holds sizes of gradients (Adamax)."""
COPIES = ("z", "x0", "lookahead_slow_buff")
"""State that holds other weights, from which the next ones are computed (schedule-free, MADGRAD, Lookahead)."""
KNOWN = "SGD, Adam, AdamW, NAdam, RAdam, AdaBelief, Adagrad, RMSprop, Adafactor, Lion or Muon"


def follow_(optimizers: Iterable[Optimizer], parameter: Tensor, changed: Callable[[str, Tensor], Tensor]) -> None:
    """Change the optimizers' state of a parameter to a new shape; call this while the parameter has its old shape.

    Numbers such as the count of steps stay. If an optimizer keeps tensors of another shape (the factored second moments
    of Adafactor, the preconditioners of Kron), its state of the parameter is dropped and starts afresh.

    Args:
        optimizers: of which any may train the parameter.
        parameter: that is changed next.
        changed: maps the name of a state, and its tensor of the parameter's shape, to the new tensor.
    """
    for state in _states(optimizers, parameter):
        if _has_other_shapes(state, parameter):
            state.clear()
        else:
            state |= {key: changed(key, x) for key, x in _tensors(state).items()}


def follow_basis(
    key: str, value: Tensor, gradient: Callable[[Tensor], Tensor], moment: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return an optimizer's state in new coordinates.

    Args:
        key: name of the state.
        value: in the old coordinates.
        gradient: how gradients change.
        moment: how their second moments change.
    """
    if key in SECOND_MOMENTS:
        return moment(value)
    return moment(value.square()).sqrt() if key in MAGNITUDES else gradient(value)


def fill_new_(optimizers: Iterable[Optimizer], parameter: Tensor, old: tuple[slice, ...]) -> None:
    """Set the second moments of a parameter's new coordinates to the mean of the old ones.

    If they started at zero beside a large count of steps, the first steps would be several times too long. Gradients of
    new coordinates stay zero.

    Args:
        optimizers: of which any may train the parameter.
        parameter: in its new shape, as is its state.
        old: the place of its old coordinates.
    """
    for state in _states(optimizers, parameter):
        for key, value in _tensors(state).items():
            if key in (*SECOND_MOMENTS, *MAGNITUDES):
                known = value[old].clone()
                value.fill_(known.mean())
                value[old] = known


def refuse_unknown_state(optimizers: Iterable[Optimizer], parameters: Iterable[Tensor]) -> bool:
    """Check that the optimizers' state of some parameters can follow a change of basis, and whether there is any.

    Raises:
        UserError: it cannot.
    """
    known, parameters = (*DIRECTIONS, *SECOND_MOMENTS, *MAGNITUDES), list(parameters)
    found = [(x, state, p) for x in optimizers for p in parameters for state in _states([x], p)]
    for optimizer, state, parameter in found:
        strange = [key for key in _tensors(state) if key not in known]
        if strange and not _has_other_shapes(state, parameter):
            raise UserError(
                f"{type(optimizer).__name__} keeps {strange[0]!r} of each weight, which cannot follow a change of "
                f"ranks: train the factorized layers with {KNOWN}"
            )
    return bool(found)


def refuse_copies(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Check that an optimizer computes weights from the current ones, not from copies that no constraint reaches.

    Raises:
        UserError: it keeps copies.
    """
    copies = {key for p in parameters for state in _states([optimizer], p) for key in COPIES if key in state}
    if copies:
        raise UserError(
            f"{type(optimizer).__name__} makes each step from a copy of the weights of its own ({min(copies)!r}), "
            f"which a constraint on factorized layers does not reach: train them with {KNOWN}"
        )


def _states(optimizers: Iterable[Optimizer], parameter: Tensor) -> list[dict[str, Any]]:
    """Return the state of a parameter in optimizers, including wrapped ones."""
    wrapped = [[x, *(y for y in vars(x).values() if isinstance(y, Optimizer))] for x in optimizers]
    return [x.state[parameter] for group in wrapped for x in group if x.state.get(parameter)]


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {key: x for key, x in state.items() if isinstance(x, Tensor) and x.ndim}


def _has_other_shapes(state: dict[str, Any], parameter: Tensor) -> bool:
    kept = [x for value in state.values() for x in (value if isinstance(value, list | tuple) else [value])]
    return any(isinstance(x, Tensor) and x.ndim and x.shape != parameter.shape for x in kept)
