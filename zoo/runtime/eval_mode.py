"""Evaluation mode: require it, or set it temporarily."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from zoo.errors import UserError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in eval mode; afterwards each of its modules returns to its own earlier mode."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, training in modes.items():
            module.training = training


def require_eval_mode(model: nn.Module, purpose: str) -> None:
    """Check that no module of a model is in training mode, where dropout is random and statistics move.

    Args:
        model: to check.
        purpose: that needs eval mode, such as "an attack".

    Raises:
        UserError: a module is; the message names the first.
    """
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is not None:
        where = f"{training} of the model" if training else "the model"
        raise UserError(f"{where} is in training mode: call model.eval() before {purpose}")
