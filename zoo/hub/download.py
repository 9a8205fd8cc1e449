"""Download a file of a hub: resumed, retried with back-off, and correct or absent."""

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from zoo.errors import UserError
from zoo.files import sha256
from zoo.hub._base import CorruptTransfer, Hub, Interrupted
from zoo.hub.index import INDEX, LARGEST_INDEX, FileEntry, Index

T = TypeVar("T")
Tick = Callable[[int], object]
"""Called with the number of bytes of the file received so far."""


def read_index(hub: Hub) -> Index:
    """Read a hub's index.

    Raises:
        UserError: the hub cannot be reached, or its index is malformed, too large, or of a newer schema.
    """

    def attempt() -> bytes:
        content = bytearray()
        with hub.open(INDEX) as stream:
            if stream.start != 0:
                raise CorruptTransfer("it does not begin at its beginning")
            for chunk in _in_time(hub, stream.chunks):
                content += chunk
                if len(content) > LARGEST_INDEX:
                    raise UserError(f"{hub.address}/{INDEX} is larger than {LARGEST_INDEX // 2**20} MiB: not read")
        if stream.length not in (None, len(content)):
            raise Interrupted("connection lost")
        return bytes(content)

    return Index.parse(_trying(hub, INDEX, attempt), f"{hub.address}/{INDEX}")


def download(hub: Hub, path: str, wanted: FileEntry, part: Path, tick: Tick = lambda _: None) -> None:
    """Download one file, and return only when it is the file that the index names.

    Args:
        hub: to get it from.
        path: in the hub.
        wanted: its size and digest.
        part: the path to write; an earlier partial download there is continued. It is removed on failure, except when
            the user interrupts.
        tick: called on progress.

    Raises:
        UserError: the hub does not have the file, or not the right one, or the disk does not take it.
    """

    def attempt() -> None:
        have = part.stat().st_size if part.exists() else 0
        if have > wanted.bytes:
            raise CorruptTransfer("what an earlier download left is too long")
        if have < wanted.bytes:
            _append(hub, path, wanted, part, tick)
        if sha256(part) != wanted.sha256:
            raise CorruptTransfer(f"its SHA-256 is not the {wanted.sha256} of the index")

    try:
        _trying(hub, path, attempt, lambda: part.unlink(missing_ok=True))
    except UserError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path} ({wanted.bytes / 1e6:.1f} MB) cannot be written to {part.parent}: {error.strerror or error}; "
            "make room, or set ZOO_CACHE to another folder"
        ) from None


def _append(hub: Hub, path: str, wanted: FileEntry, part: Path, tick: Tick) -> None:
    """Download the missing part of a file."""
    have = part.stat().st_size if part.exists() else 0
    with hub.open(path, have) as stream, part.open("ab") as file:
        if stream.length not in (None, wanted.bytes - stream.start):
            raise CorruptTransfer(
                f"the hub's file has {stream.start + (stream.length or 0):,} bytes, its index {wanted.bytes:,}"
            )
        file.truncate(stream.start)
        written = stream.start
        for chunk in _in_time(hub, stream.chunks):
            written += len(chunk)
            if written > wanted.bytes:
                raise CorruptTransfer(f"more comes than the {wanted.bytes:,} bytes of the index")
            file.write(chunk)
            tick(written)
    if written < wanted.bytes:
        raise Interrupted(f"connection lost after {written:,} of {wanted.bytes:,} bytes")


def _in_time(hub: Hub, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Pass chunks on as long as they come fast enough."""
    window, came = time.monotonic(), 0
    for chunk in chunks:
        came += len(chunk)
        passed = time.monotonic() - window
        if passed > hub.patience.timeout:
            if came < hub.patience.slowest * passed:
                raise Interrupted(f"only {came / passed:.0f} bytes per second come")
            window, came = time.monotonic(), 0
        yield chunk


def _trying(hub: Hub, path: str, attempt: Callable[[], T], start_over: Callable[[], object] = lambda: None) -> T:
    """Make an attempt, and retry after growing pauses if a retry may succeed."""
    patience = hub.patience
    for i in range(patience.attempts):
        if i:
            time.sleep(patience.delay * 2 ** (i - 1) * random.uniform(0.5, 1.0))
        try:
            return attempt()
        except Interrupted as error:
            reason = error
            if isinstance(error, CorruptTransfer):
                start_over()
    raise UserError(
        f"{path} could not be fetched from {hub.address} in {patience.attempts} attempts: {reason}"
    ) from None


def digest(content: bytes) -> FileEntry:
    """Return the index entry of a file with this content."""
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
