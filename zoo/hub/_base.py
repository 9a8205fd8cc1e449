"""The contract of a hub: an index and one folder per model, on any kind of storage."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UserError
from zoo.hub.index import Entry, Index


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try.

    Attributes:
        attempts: at each file.
        delay: seconds before the second attempt; twice as long before each further one.
        timeout: seconds to wait for an answer, and for each piece of it.
        slowest: bytes per second below which a server counts as stalled, over one ``timeout``.
    """

    attempts: int = 5
    delay: float = 0.5
    timeout: float = 20.0
    slowest: float = 1024.0


class Interrupted(Exception):
    """An attempt failed, but another one may succeed; the bytes received so far stay good."""


class CorruptTransfer(Interrupted):
    """An attempt failed, and the bytes received so far may be wrong: start over."""


@dataclass(frozen=True)
class Stream:
    """A file that is being received.

    Attributes:
        start: offset of the first byte received.
        length: bytes to receive, if the place states it.
        chunks: the bytes.
    """

    start: int
    length: int | None
    chunks: Iterator[bytes]


class Hub(ABC):
    """A place that models are downloaded from.

    Args:
        address: as the user wrote it; a password in it is kept out of messages and pages (`Hub.address`).
        patience: how long to try.
    """

    def __init__(self, address: str, patience: RetryPolicy | None = None) -> None:
        self.address = re.sub(r"(?<=://)[^/]*@", "", address)
        self.patience = patience or RetryPolicy()

    @abstractmethod
    def open(self, path: str, offset: int = 0, end: int | None = None) -> AbstractContextManager[Stream]:
        """Open a file of the hub, from an offset on if the place can do that.

        Args:
            path: relative, with ``/``.
            offset: of the first byte wanted; see `Stream.start` for the first that comes.
            end: offset after the last byte wanted; more may come. None: the whole rest.

        Raises:
            UserError: there is no such file, or the hub refuses.
            Interrupted: the connection failed; chunks raise it too.
        """

    def local(self, path: str) -> Path | None:
        """Return a file's path if it is on this machine and needs no copy."""
        return None

    def check_free(self, name: str) -> None:
        """Check that a model can be published under a name, before any work is done.

        Raises:
            UserError: the hub cannot be written, or has the name already.
        """
        self.current_index().check_free(name, self.address)

    def current_index(self) -> Index:
        """Return the index that a model would be added to, empty for a new hub.

        Raises:
            UserError: the hub cannot be published to.
        """
        raise self._read_only()

    def add(self, name: str, entry: Entry, build: Callable[[Path], object]) -> None:
        """Publish a model: its files, then its entry in the index.

        Args:
            name: of the model.
            entry: for the index.
            build: writes the model's files into an empty folder.

        Raises:
            UserError: the hub has the name already, or cannot be written.
        """
        raise self._read_only()

    def _read_only(self) -> UserError:
        return UserError(f"{self.address} cannot be published to: publish to a folder, hf://ORG/REPO or a bucket")
