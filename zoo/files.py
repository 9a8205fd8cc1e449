"""Write files whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces the file, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; on success it replaces the folder, on failure it is removed.

    An older folder is moved aside during the exchange, and back if that fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    aside = temporary.with_name(f"{temporary.name}-old")
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            path.replace(aside)
        temporary.replace(path)
    finally:
        if aside.exists() and not path.exists():
            aside.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def user_path(path: str | Path) -> Path:
    """Return a path as people type it as the path that is meant: a leading ``~`` or ``~USER`` is a home folder.

    A shell leaves ``~`` alone in ``--out=~/run``, and so do YAML and Python. A user who does not exist stays as typed.
    """
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """Return zoo's cache folder, whose content can be recreated: ``ZOO_CACHE``, or the system's place for caches."""
    return user_path(os.environ.get("ZOO_CACHE") or platformdirs.user_cache_path("zoo"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_beginning(path: Path, length: int) -> str:
    """Return the SHA-256 of the first bytes of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(length)).hexdigest()
