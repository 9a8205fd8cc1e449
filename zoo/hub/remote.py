"""A hub on anything that fsspec opens: s3://, gs://, az://, sftp://, memory://, ..."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.hub._base import Hub, Interrupted, RetryPolicy, Stream
from zoo.hub.download import read_index
from zoo.hub.folder import PATIENCE_WITH_PUBLISHERS, chunks_of
from zoo.hub.index import INDEX, Entry, Index

LOCK = "index.lock"


class RemoteHub(Hub):
    """A folder in a file system of fsspec; the exceptions of its libraries have no common base class."""

    def __init__(self, address: str, patience: RetryPolicy | None = None) -> None:
        super().__init__(address, patience)
        import fsspec

        try:
            self.files, self.root = fsspec.core.url_to_fs(address.rstrip("/"))
        except ImportError as error:
            raise UserError(f"{self.address} needs a package that is not installed: {error}") from None
        except Exception as error:
            words = _words(error).replace(address.rstrip("/"), self.address)
            raise UserError(f"{self.address} is not a hub address: {words}") from None

    @contextmanager
    def open(self, path: str, offset: int = 0) -> Iterator[Stream]:
        """Open a file."""
        with self._opened(path, offset) as file:
            yield Stream(offset, None, chunks_of(file))

    def _opened(self, path: str, offset: int) -> Any:
        try:
            file = self.files.open(f"{self.root}/{path}", "rb")
            file.seek(offset)
            return file
        except FileNotFoundError:
            raise UserError(f"{self.address} has no {path}") from None
        except PermissionError as error:
            raise UserError(f"{self.address} refuses {path}: {error}") from None
        except Exception as error:
            raise Interrupted(_words(error)) from None

    def add(self, name: str, entry: Entry, build: Callable[[Path], object]) -> None:
        """Write the model's files, then the index, while a lock file is there.

        If file creation can be exclusive, as on s3:// and gs://, only one publisher can create it. Elsewhere (such as
        sftp://) two that start within one round trip may both continue, so publishers must take turns there.
        """
        self.current_index().with_model(name, entry, self.address)
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder))
            with self._explained(), self._locked():
                index = self.current_index().with_model(name, entry, self.address)
                self.files.makedirs(f"{self.root}/{name}", exist_ok=True)
                for file in entry.files:
                    self.files.pipe_file(f"{self.root}/{name}/{file}", (Path(folder) / file).read_bytes())
                self.files.pipe_file(f"{self.root}/{INDEX}", index.to_json())

    def current_index(self) -> Index:
        """Return the index, empty for a new hub.

        Raises:
            UserError: it cannot be read. Only a definite answer counts as a missing index: an empty index in its place
                would make every published model disappear.
        """
        self.files.invalidate_cache()
        try:
            with self._explained():
                self.files.info(f"{self.root}/{INDEX}")
        except FileNotFoundError:
            return Index()
        return read_index(self)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Report in one line what the file system refused."""
        try:
            yield
        except (UserError, FileNotFoundError):
            raise
        except Exception as error:
            raise UserError(f"{self.address} failed: {_words(error)}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = f"{self.root}/{LOCK}"
        self.files.makedirs(self.root, exist_ok=True)
        deadline = time.monotonic() + PATIENCE_WITH_PUBLISHERS
        while True:
            try:
                self.files.pipe_file(lock, b"publishing", mode="create")
                break
            except FileExistsError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{self.address} is locked by another publisher; if there is none, delete {lock}"
                    ) from None
                time.sleep(0.5)
        try:
            yield
        finally:
            with suppress(Exception):
                self.files.rm_file(lock)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
