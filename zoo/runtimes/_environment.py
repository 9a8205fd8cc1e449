"""Environments apart: packages that would hold others back, in zoo's cache folder."""

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from zoo.errors import UserError
from zoo.files import cache_folder
from zoo.screen import note

COMPLETE = "complete"
"""A file in the folder of an environment, written last: one that was interrupted is made anew."""


def python_environment(name: str, packages: Sequence[str]) -> Path:
    """Return the Python of an environment with these packages; it is made at the first call, said in a line.

    Args:
        name: of the environment, for people.
        packages: requirements, each with its version.

    Raises:
        UserError: they cannot be installed.
    """
    folder = _folder(name, packages)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def make() -> None:
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        venv.create(folder, symlinks=sys.platform != "win32", with_pip=uv is None)
        if packages:
            pip = [uv, "pip", "install", "-q", "-p", str(python)] if uv else [str(python), "-m", "pip", "install", "-q"]
            _install([*pip, *packages], packages)

    return _made(folder, packages, make, python)


def _folder(name: str, packages: Sequence[str]) -> Path:
    digest = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:8]
    return cache_folder() / "environments" / f"{name}-{digest}"


def _made(folder: Path, packages: Sequence[str], make, found: Path) -> Path:  # type: ignore[no-untyped-def]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / COMPLETE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            note(f"installing {', '.join(packages) or 'nothing'} once, in an environment of its own: {folder}")
            make()
            (folder / COMPLETE).touch()
    return found


def _install(command: Sequence[str], packages: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise UserError(f"{', '.join(packages)} cannot be installed: {lines[-1][:300] if lines else 'no reason given'}")
