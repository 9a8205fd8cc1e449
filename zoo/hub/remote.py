"""A hub on anything that fsspec opens: s3://, gs://, az://, sftp://, memory://, ..."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.hub._base import Hub, Interrupted, Patience, Stream
from zoo.hub.folder import PATIENCE_WITH_PUBLISHERS, chunks_of
from zoo.hub.index import INDEX, LARGEST_INDEX, Entry, Index

LOCK = "index.lock"


class RemoteHub(Hub):
    """A folder in a file system of fsspec."""

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        super().__init__(address, patience)
        import fsspec

        try:
            self.files, self.root = fsspec.core.url_to_fs(address.rstrip("/"))
        except ImportError as error:
            raise UserError(f"{address} needs a package that is not installed: {error}") from None
        except ValueError as error:
            raise UserError(f"{address} is no address of a hub: {error}") from None

    @contextmanager
    def open(self, path: str, offset: int = 0) -> Iterator[Stream]:
        """Open a file."""
        with self._opened(path) as file:
            file.seek(offset)
            yield Stream(offset, None, chunks_of(file))

    def _opened(self, path: str) -> Any:
        try:
            return self.files.open(f"{self.root}/{path}", "rb")
        except FileNotFoundError:
            raise UserError(f"{self.address} has no {path}") from None
        except PermissionError as error:
            raise UserError(f"{self.address} refuses {path}: {error}") from None
        except OSError as error:
            raise Interrupted(str(error)) from None

    def add(self, name: str, entry: Entry, build: Callable[[Path], object]) -> None:
        """Write the model's files, then the index, while a lock file that only one publisher can create is there."""
        self.current_index().with_model(name, entry, self.address)
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder))
            with self._locked():
                index = self.current_index().with_model(name, entry, self.address)
                self.files.makedirs(f"{self.root}/{name}", exist_ok=True)
                for file in entry.files:
                    self.files.pipe_file(f"{self.root}/{name}/{file}", (Path(folder) / file).read_bytes())
                self.files.pipe_file(f"{self.root}/{INDEX}", index.to_json())

    def current_index(self) -> Index:
        """Return the index, empty for a new hub."""
        self.files.invalidate_cache()
        if not self.files.exists(f"{self.root}/{INDEX}"):
            return Index()
        with self._opened(INDEX) as file:
            return Index.parse(file.read(LARGEST_INDEX), f"{self.address}/{INDEX}")

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
            with suppress(OSError):
                self.files.rm_file(lock)
