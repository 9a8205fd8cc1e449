"""The contract of a runtime: say whether it is here, convert a file, open it, run a batch."""

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError


class Session(Protocol):
    """A classifier that is open in a runtime."""

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify images (batch, C, H, W) in [0, 1], of any batch: logits (batch, classes)."""
        ...


class Runtime(ABC):
    """A runtime on the CPU, computing in fp32 unless the file is of lower precision.

    A subclass imports its library inside its functions: `zoo list` and a bench without it need no such library.

    Attributes:
        library: import name of the library.
        distributions: that may bring it, by their names in the package index.
        install: command that installs it.
    """

    library: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]
    install: ClassVar[str]

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

    def convert(self, file: Path, folder: Path) -> Path:
        """Return the runtime's own form of an ONNX file, written into a folder; the file itself if it reads ONNX.

        Raises:
            UserError: an operator is not known to it.
        """
        return file

    @abstractmethod
    def open(self, file: Path, threads: int) -> Session:
        """Open a file that `convert` returned.

        Raises:
            UserError: the file is missing or damaged, or the runtime cannot run it.
        """
