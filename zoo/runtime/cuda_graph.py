"""CUDA graphs: kernels that the host would launch one by one, recorded once and replayed in one launch."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo.errors import UserError, first_line

T = TypeVar("T")
Capture = Callable[[Callable[[], T]], tuple[T, Callable[[], None]]]
"""Maps a function without arguments to its result, and to a replay that recomputes the result in the same memory."""
WARM_RUNS = 3
"""Runs before the capture, in which libraries choose kernels and allocate their workspace."""


def captured(run: Callable[[], T]) -> tuple[T, Callable[[], None]]:
    """Run a function a few times on a stream of its own, then capture it.

    Returns:
        The result of the capture, whose memory each replay overwrites, and the replay.

    Raises:
        UserError: something inside waits for the device, or copies between it and the host.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_RUNS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = run()
    except RuntimeError as error:
        raise UserError(
            f"this training step cannot be captured ({first_line(error)}): leave --cuda-graph out"
        ) from None
    return result, graph.replay


def called(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function directly: the replacement of `Replays` when nothing is captured."""
    return function(*arguments)


class Replays:
    """Calls functions of tensors; each is captured at its first call with given shapes and replayed afterwards.

    Their arguments are lists of tensors, and constants that can be hashed. A function gets copies of the tensors, and
    may write and return them; its next call overwrites its result. A function that cannot be captured (a library may
    wait for the device inside) is called directly.

    Args:
        capture: see `Capture`.
    """

    def __init__(self, capture: Capture[Any] = captured) -> None:
        self.capture = capture
        self._entries: dict[object, tuple[list[Tensor], Any, Callable[[], None]] | None] = {}

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return ``function(*arguments)``."""
        key = (function, *(_signature(argument) for argument in arguments))
        if key not in self._entries:
            self._entries[key] = self._entry(function, arguments)
        entry = self._entries[key]
        if entry is None:
            return function(*arguments)
        inputs, result, replay = entry
        torch._foreach_copy_(inputs, _tensors(arguments))
        replay()
        returned: T = result
        return returned

    def _entry(
        self, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> tuple[list[Tensor], Any, Callable[[], None]] | None:
        """Capture a function; return None if that is impossible."""
        held = [_held(argument) for argument in arguments]
        try:
            result, replay = self.capture(lambda: function(*held))
        except UserError:
            return None
        return _tensors(held), result, replay


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    return [tensor for argument in arguments if isinstance(argument, list) for tensor in argument]


def _signature(argument: Any) -> object:
    return tuple((x.shape, x.dtype, x.device) for x in argument) if isinstance(argument, list) else argument


def _held(argument: Any) -> Any:
    """Return memory of a graph's own for the tensors of an argument."""
    if not isinstance(argument, list):
        return argument
    return [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in argument]
