"""Tract, a runtime in Rust for servers and small devices, which reads ONNX files itself."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError, first_line
from zoo.runtimes._base import Runtime, Session


class Tract(Runtime):
    """Tract on the CPU."""

    library = "tract"
    distributions = ("tract",)
    install = "pip install 'robust-zoo[tract]'"

    def threads(self, wanted: int) -> int:
        """Return 1: its Python package computes in one thread."""
        return 1

    def open(self, file: Path, threads: int) -> Session:
        """Read an ONNX file; the network is optimised once, for any batch."""
        import tract

        try:
            return _Runnable(tract.onnx().load(str(file)).into_model().into_runnable())
        except Exception as error:  # its TractError has no base of its own
            raise UserError(f"tract cannot open {file}: {first_line(error)}") from None


class _Runnable:
    def __init__(self, model: Any) -> None:
        self._model = model

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return self._model.run([np.ascontiguousarray(images)])[0].to_numpy()
        except Exception as error:
            raise UserError(f"tract cannot run a batch of {len(images)} images: {first_line(error)}") from None
