"""LiteRT, which runs TensorFlow Lite files on phones and microcontrollers."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UserError, first_line
from zoo.runtimes._base import Runtime, Session, Source, one_by_one
from zoo.runtimes._environment import python_environment

CONVERTER = ("litert-torch==0.10.0", "ai-edge-litert==2.3.0")
"""The converter holds torch back, so that it is installed apart, at the first conversion."""
CONVERT = """
import sys, torch, litert_torch
program = torch.export.load(sys.argv[1])
litert_torch.convert(program.module(), program.example_inputs[0]).export(sys.argv[2])
"""


class LiteRt(Runtime):
    """LiteRT (TensorFlow Lite) on the CPU, by XNNPACK where that has an operator; one image at a time."""

    library = "ai_edge_litert"
    distributions = ("ai-edge-litert",)
    install = "pip install 'robust-zoo[litert]'"
    precisions = ("fp32",)
    reads_onnx = False
    suffix = ".tflite"

    def convert(self, source: Source, folder: Path) -> Path:
        """Export the network, and convert it in an environment of the converter's own."""
        import torch

        network, example = source.network("litert"), torch.zeros(1, *source.image_shape)
        exported, path = folder / "network.pt2", folder / "network.tflite"
        try:
            torch.export.save(torch.export.export(network, (example,)), exported)
        except Exception as error:  # of the architecture's code
            raise UserError(f"litert cannot convert {source.file}: {first_line(error)}") from None
        python = python_environment("litert", CONVERTER)
        done = subprocess.run([str(python), "-c", CONVERT, str(exported), str(path)], capture_output=True, text=True)
        if done.returncode or not path.is_file():
            raise UserError(f"litert cannot convert {source.file}: {_reason(done.stderr)}")
        return path

    def open(self, file: Path, threads: int) -> Session:
        """Open a TensorFlow Lite file of batch 1."""
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(str(file), num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"litert cannot open {file}: {first_line(error)}") from None
        return _Interpreter(interpreter)


class _Interpreter:
    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]["index"]
        self._output = interpreter.get_output_details()[0]["index"]

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return one_by_one(self._run, images)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"litert cannot run an image: {first_line(error)}") from None

    def _run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)  # a copy


def _reason(said: str) -> str:
    """Return what the converter says last; of an operator that it does not know, that line and the layer's."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line for line in lines if "not supported" in line or "Unsupported" in line or "not implemented" in line]
    return " ".join((named or lines or ["it gave no reason"])[-1].split())[:300]
