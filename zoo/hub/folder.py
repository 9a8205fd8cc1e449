"""A hub that is a folder on this machine."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, get_args

from filelock import FileLock, Timeout

from zoo.errors import UserError
from zoo.files import atomic, user_path
from zoo.hub._base import Hub, Interrupted, RetryPolicy, Stream
from zoo.hub.index import INDEX, LARGEST_INDEX, Entry, FileName, Index

CHUNK = 2**18
LOCK = ".lock"
PATIENCE_WITH_PUBLISHERS = 60.0
"""Seconds to wait while others publish; each holds the lock for two renames."""


class FolderHub(Hub):
    """A folder with an index; files are used where they are."""

    def __init__(self, address: str, patience: RetryPolicy | None = None) -> None:
        super().__init__(address, patience)
        self.folder = user_path(address)

    @contextmanager
    def open(self, path: str, offset: int = 0, end: int | None = None) -> Iterator[Stream]:
        """Open a file; whoever reads it stops at the end."""
        try:
            file = (self.folder / path).open("rb")
        except FileNotFoundError:
            raise UserError(f"{self.folder} has no {path}{self._hint(path)}") from None
        except OSError as error:
            raise UserError(f"{self.folder / path} cannot be read: {error.strerror}") from None
        with file:
            file.seek(offset)
            yield Stream(offset, None, chunks_of(file))

    def _hint(self, path: str) -> str:
        return ": it is not a hub" if path == INDEX else ", which its index names"

    def local(self, path: str) -> Path | None:
        """Return the file itself."""
        return self.folder / path

    def check_free(self, name: str) -> None:
        """Check that a model can be published under a name."""
        super().check_free(name)
        self._see_what_is_in_the_way(name)
        with self._told():
            folder = self.folder.absolute()
            nearest = next(place for place in (folder, *folder.parents) if place.exists())
            os.rmdir(tempfile.mkdtemp(dir=nearest, prefix=".publishing-"))
            if (folder / LOCK).exists():
                with self._lock():
                    pass

    def add(self, name: str, entry: Entry, build: Callable[[Path], object]) -> None:
        """Build the model beside its place, then put it there and rewrite the index, both by renaming, under a lock."""
        where = str(self.folder)
        with self._told():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.current_index().with_model(name, entry, where)
            staging = Path(tempfile.mkdtemp(dir=self.folder, prefix=".publishing-"))
        try:
            build(staging)
            staging.chmod(0o755)
            with self._told(), self._lock():
                index = self.current_index().with_model(name, entry, where)
                if not (self.folder / INDEX).exists():
                    self._write(Index())  # first of all, so that nobody sees a folder that is not a hub
                self._see_what_is_in_the_way(name)
                place = self.folder / name
                if place.exists():
                    shutil.rmtree(place)  # left by a publisher that died: no index ever named it
                staging.rename(place)
                self._write(index)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _see_what_is_in_the_way(self, name: str) -> None:
        place = self.folder / name
        if place.exists() and not (place.is_dir() and {path.name for path in place.iterdir()} <= {*get_args(FileName)}):
            raise UserError(f"{place} already exists and is not a published model: move it, or choose another --tag")

    def _lock(self) -> FileLock:
        return FileLock(self.folder / LOCK, timeout=PATIENCE_WITH_PUBLISHERS, mode=0o666)  # a team has one hub

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Report in one line why the folder cannot be written."""
        try:
            yield
        except Timeout:
            raise UserError(f"{self.folder} is locked by another publisher: try again in a minute") from None
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror or error}") from None

    def _write(self, index: Index) -> None:
        with atomic(self.folder / INDEX) as temporary:
            temporary.write_bytes(index.to_json())

    def current_index(self) -> Index:
        """Return the index, empty for a new hub."""
        file = self.folder / INDEX
        if not file.exists():
            if self.folder.is_dir() and any(not path.name.startswith((".", "__")) for path in self.folder.iterdir()):
                raise UserError(f"{self.folder} is neither empty nor a hub: it has no {INDEX}")
            return Index()
        with file.open("rb") as opened:
            return Index.parse(opened.read(LARGEST_INDEX), str(file))


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """Read an open file piece by piece.

    Raises:
        Interrupted: reading failed.
    """
    while True:
        try:
            chunk = file.read(CHUNK)
        except Exception as error:  # of a file system elsewhere, which has errors of its own
            raise Interrupted(str(error) or type(error).__name__) from None
        if not chunk:
            return
        yield chunk
