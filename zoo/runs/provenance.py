"""The provenance of a result: versions, commit, hardware."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from zoo._version import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
)


def versions() -> dict[str, str]:
    """Return the versions of zoo, Python and the packages that figures depend on."""
    found = {"zoo": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit(source: Path = Path(__file__)) -> str | None:
    """Return the commit of the source tree that zoo runs from, ``-dirty`` if changed; None outside one.

    Args:
        source: a file of zoo. A repository that does not track it, such as one around a virtual environment, does not
            count.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=source.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_name() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware(device: torch.device) -> str:
    """Describe ``device`` in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {in_threads(torch.get_num_threads())}"


def in_threads(n: int) -> str:
    """Return "1 thread", "2 threads" and so on."""
    return f"{n} thread" if n == 1 else f"{n} threads"
