"""What optimizers keep of a parameter, when its shape changes while it trains."""

from collections.abc import Callable, Iterable

from torch import Tensor
from torch.optim import Optimizer


def follow_(optimizers: Iterable[Optimizer], parameter: Tensor, changed: Callable[[str, Tensor], Tensor]) -> None:
    """Give optimizers' state of a parameter its new shape; to be called while the parameter has its old one.

    Numbers such as the count of steps stay. Where an optimizer keeps tensors of another shape (the factored second
    moments of Adafactor), it forgets the parameter and starts anew with it.

    Args:
        optimizers: of which any may train the parameter.
        parameter: that is changed next.
        changed: from the name of a state, and its tensor of the parameter's shape, to the new tensor.
    """
    for optimizer in optimizers:
        state = optimizer.state.get(parameter, {})
        tensors = {key: x for key, x in state.items() if isinstance(x, Tensor) and x.ndim}
        if any(x.shape != parameter.shape for x in tensors.values()):
            state.clear()
        else:
            state |= {key: changed(key, x) for key, x in tensors.items()}
