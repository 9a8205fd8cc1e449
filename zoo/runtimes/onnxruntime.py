"""ONNX Runtime, the runtime that files are written for: forms, fusions and layouts are chosen by its times."""

from pathlib import Path

from zoo.latency.session import OnnxModel
from zoo.runtimes._base import Runtime, Session


class OnnxRuntime(Runtime):
    """ONNX Runtime on the CPU."""

    library = "onnxruntime"
    distributions = ("onnxruntime-gpu", "onnxruntime")
    install = "pip install onnxruntime"
    precisions = ("fp32", "fp16", "int8")

    def open(self, file: Path, threads: int) -> Session:
        """Open a file that `zoo export` wrote; see `zoo.latency.session.OnnxModel`."""
        return OnnxModel(file, "cpu", threads)
