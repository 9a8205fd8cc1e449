"""OpenVINO on the CPU, which reads ONNX files itself."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError, first_line
from zoo.runtimes._base import Runtime, Session
from zoo.runtimes._places import operators_in, unknown_operators


class OpenVino(Runtime):
    """OpenVINO on the CPU, in fp32: left to itself it computes in bf16 on processors that have it."""

    library = "openvino"
    distributions = ("openvino",)
    install = "pip install 'robust-zoo[openvino]'"

    def open(self, file: Path, threads: int) -> Session:
        """Read an ONNX file; the network is compiled for each batch size when it first comes."""
        import openvino

        core = openvino.Core()
        try:
            return _Compiled(core, core.read_model(file), threads)
        except Exception as error:  # its exceptions are RuntimeError, and others of its frontends
            unknown = operators_in(str(error), file) if "not support" in str(error) else []
            why = unknown_operators("openvino", file, unknown) if unknown else ""
            raise UserError(why or f"OpenVINO cannot open {file}: {_reason(error)}") from None


class _Compiled:
    """A network, compiled for the batch sizes that came."""

    def __init__(self, core: Any, model: Any, threads: int) -> None:
        self._core, self._model = core, model
        self._options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self._compiled: dict[int, Any] = {}

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = len(images)
        try:
            if batch not in self._compiled:
                self._model.reshape(list(images.shape))
                self._compiled[batch] = self._core.compile_model(self._model, "CPU", self._options)
            return np.array(self._compiled[batch](images)[0])  # its memory is reused by the next run
        except Exception as error:
            raise UserError(f"OpenVINO cannot run a batch of {batch} images: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return what its message says last: the first lines name files of its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else first_line(error)
