"""The contract of an engine: do independent parts of a work, or run the processes of one training."""

from __future__ import annotations

import importlib.util
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from zoo.errors import UserError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
Device = Literal["auto", "cpu", "cuda"]
"""Where a worker computes; auto: on a GPU, if the engine's machines have any."""


def enter(folder: str) -> None:
    """Go to the folder in which a command was given: the paths of its arguments lead from there.

    Raises:
        UserError: this machine does not have it.
    """
    try:
        os.chdir(folder)
    except OSError:
        raise UserError(f"{folder} is not on {socket.gethostname()}: the machines need a folder in common") from None


class LostWorker(UserError):
    """A process ended that worked on something, and not by an error of its own."""


@dataclass(frozen=True)
class Engine(ABC):
    """Processes, here or on other machines, that work for a command.

    A subclass is a frozen dataclass in a file of its own, whose name is the engine's; its fields are its options. It
    imports its library inside its functions. What it is given to run is a function of a module and values that can be
    pickled: the other machines need the same zoo.

    Attributes:
        library: import name of the library.
        extra: of zoo, which installs it.
    """

    workers: int | None = None
    """Processes that work at once; None: one for each processor of the engine's machines."""
    threads: int = 1
    """Threads of each process on a CPU."""

    library: ClassVar[str]
    extra: ClassVar[str]

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers must be at least 1, not {self.workers}")
        if self.threads < 1:
            raise UserError(f"--engine: threads must be at least 1, not {self.threads}")

    @classmethod
    def check_installed(cls) -> None:
        """Check that the library is installed.

        Raises:
            UserError: it is not.
        """
        if importlib.util.find_spec(cls.library) is None:
            raise UserError(f"--engine {cls.library} is not installed: pip install 'robust-zoo[{cls.extra}]'")

    @abstractmethod
    def map(
        self, function: Callable[[S, T], R], shared: S, items: Sequence[T], device: Device = "cpu"
    ) -> Iterator[tuple[int, R]]:
        """Yield (place in ``items``, ``function(shared, item)``) of each item once, in the order in which they end.

        An item whose worker is lost is done again.

        Args:
            function: of a module.
            shared: sent to each machine once.
            items: sent when their turn comes.
            device: on ``cuda``, each worker has a GPU of its own.

        Raises:
            UserError: there is no such cluster, or the item of a lost worker was lost again and again, or the
                function raised it.
        """

    @abstractmethod
    def launch(self, function: Callable[[S, dict[str, Any]], None], argument: S, device: Device = "cpu") -> None:
        """Run a function in all workers at once, as the processes of one training, and wait for them.

        Args:
            function: of a module; called with the argument and with the options by which Lightning's Trainer finds the
                other processes.
            argument: for each worker.
            device: on ``cuda``, each worker has a GPU of its own.

        Raises:
            LostWorker: one of the processes ended.
            UserError: there is no such cluster, or it has too few processors or GPUs, or the function raised it.
        """
