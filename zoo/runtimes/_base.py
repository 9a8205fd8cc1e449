"""The contract of a runtime: say whether it is here, convert a classifier, open it, run a batch, time it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError
from zoo.latency.timing import time_runs

if TYPE_CHECKING:
    from torch import nn


class Session(Protocol):
    """A classifier that is open in a runtime."""

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify images (batch, C, H, W) in [0, 1], of any batch: logits (batch, classes)."""
        ...


@dataclass(frozen=True)
class Source:
    """A classifier to convert: its ONNX file, and the same network in PyTorch if that is at hand.

    Attributes:
        file: the ONNX file.
        image_shape: (C, H, W), or the shape of one input without its batch.
        build: returns the network that the file holds, in eval mode on the CPU, each layer in the file's form and
            BatchNorm folded; None if only the file is there.
        precision: of the file.
    """

    file: Path
    image_shape: tuple[int, ...]
    build: Callable[[], nn.Module] | None = None
    precision: str = "fp32"

    def network(self, runtime: str) -> nn.Module:
        """Return the network, for a runtime that does not read ONNX files.

        Raises:
            UserError: only the file is there.
        """
        if self.build is None:
            raise UserError(
                f"{runtime} converts the PyTorch network, not its ONNX file, and no run of its weights is beside "
                f"{self.file}: give the RUN, or leave {runtime} out"
            )
        return self.build()


class Runtime(ABC):
    """A runtime on the CPU, computing in fp32 unless the file is of lower precision.

    A subclass imports its library inside its functions: `zoo list` and a bench without it need no such library.

    Attributes:
        library: import name of the library.
        distributions: that may bring it, by their names in the package index.
        install: command that installs it.
        precisions: of the files that it runs.
        reads_onnx: whether it converts or reads the ONNX file; otherwise the network.
        suffix: of what `convert` writes; ``.onnx`` if it reads ONNX files itself.
    """

    library: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]
    install: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    reads_onnx: ClassVar[bool] = True
    suffix: ClassVar[str] = ".onnx"

    def version(self) -> str:
        """Return the version of the library.

        Raises:
            UserError: it is not installed.
        """
        if importlib.util.find_spec(self.library) is not None:
            for distribution in self.distributions:
                try:
                    return importlib.metadata.version(distribution)
                except importlib.metadata.PackageNotFoundError:
                    continue
        raise UserError(f"the runtime {self.library} is not installed: {self.install}")

    def threads(self, wanted: int) -> int:
        """Return how many threads of one operator a session uses where so many are wanted."""
        return wanted

    def convert(self, source: Source, folder: Path) -> Path:
        """Return the runtime's own form of a classifier, written into a folder; its ONNX file if it reads that.

        Raises:
            UserError: an operator is not known to it, or it needs the network and only the file is there.
        """
        return source.file

    def files(self, file: Path) -> tuple[Path, ...]:
        """Return the files that make up what `convert` returned."""
        return (file,)

    @abstractmethod
    def open(self, file: Path, threads: int) -> Session:
        """Open a file that `convert` returned.

        Raises:
            UserError: the file is missing or damaged, or the runtime cannot run it.
        """

    def times(self, session: Session, images: NDArray[np.float32], seconds: float) -> list[float]:
        """Classify a batch for about ``seconds`` and return the time of each run, in seconds, by the runtime's clock.

        A runtime in another process has a clock there: transport of the images is no part of a run.
        """
        return time_runs(lambda: session.logits(images), seconds)


class Runner:
    """Classifies one batch in a session; `zoo.latency.timing.time_runs` times it by the runtime's own clock."""

    def __init__(self, runtime: Runtime, session: Session, images: NDArray[np.float32]) -> None:
        self._runtime, self._session, self._images = runtime, session, images

    def __call__(self) -> None:
        """Run once."""
        self.times(0.0)

    def times(self, seconds: float) -> list[float]:
        """Run for about ``seconds`` and return the time of each run, in seconds."""
        return self._runtime.times(self._session, self._images, seconds)


def one_by_one(run: Callable[[NDArray[np.float32]], NDArray[np.float32]], images: NDArray[np.float32]) -> NDArray:
    """Classify the images of a batch one after another, for runtimes whose files have a batch of 1.

    Args:
        run: maps one image (1, C, H, W), contiguous, to its logits (1, classes) in memory of their own.
        images: (batch, C, H, W).
    """
    contiguous = np.ascontiguousarray(images, dtype=np.float32)
    return np.concatenate([run(contiguous[i : i + 1]) for i in range(len(contiguous))])
