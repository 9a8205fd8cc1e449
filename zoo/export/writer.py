"""Write one model's graph in several forms, each once, at the requested precision."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from zoo.export.choice import Forms, apply_forms
from zoo.export.onnx_file import as_written, write_onnx
from zoo.export.parity import check_parity
from zoo.export.precision import saturates_here, to_fp16, to_int8
from zoo.latency.measure import Program
from zoo.lowrank.chain import FactorChain
from zoo.runs.file_metadata import Metadata
from zoo.runtime.complexity import count_macs, count_params
from zoo.runtimes import DEFAULT, RUNTIMES, TIMING, Source


@dataclass(frozen=True)
class Written:
    """One graph.

    Attributes:
        path: the file, at the requested precision.
        full: the same graph in fp32.
        params: parameters in it, with BatchNorm folded, padding zeros included.
        macs: its multiply-accumulates for one image, padding zeros included.
        factorized: layers that it holds as two.
        parity: largest relative difference of logits from PyTorch's, by batch size, in fp32.
        source: what runtimes convert.
    """

    path: Path
    full: Path
    params: int
    macs: int
    factorized: int
    parity: dict[int, float]
    source: Source


class GraphWriter:
    """Writes a model's graph; the same forms a second time are the same file.

    Args:
        model: the deployed model in eval mode, on the CPU.
        metadata: of the files; its precision is that of the graphs.
        folder: where files are written.
        images: calibration images of int8, (n, C, H, W) in [0, 1].
        threads: of one operator, while they are run.
    """

    def __init__(
        self,
        model: nn.Module,
        metadata: Metadata,
        folder: Path,
        images: NDArray[np.float32] | None = None,
        threads: int = 1,
    ) -> None:
        self.model, self.metadata, self.folder = model, metadata, folder
        self.images, self.threads = images, threads
        self._written: dict[str, Written] = {}
        self._converted: dict[Path, Program] = {}

    def __call__(self, forms: Forms) -> Written:
        """Write the graph with its layers in some forms, and compare its logits with PyTorch's.

        Raises:
            UserError: the architecture cannot be exported, or its logits differ.
        """
        key = str(sorted((name, str(form)) for name, form in forms.items()))
        if key not in self._written:
            self._written[key] = self._write(forms, f"{len(self._written)}")
        return self._written[key]

    def timed(self, forms: Forms, runtime: str, *, full: bool = False) -> Path | Program:
        """Write the graph and return what is timed of it in a runtime; it is converted once.

        Args:
            forms: of its layers.
            runtime: its name.
            full: of the graph in fp32.
        """
        written = self(forms)
        path = written.full if full else written.path
        if runtime == DEFAULT:
            return path
        if path not in self._converted:
            place = self.folder / f"{path.stem}-{runtime}"
            place.mkdir()
            source = replace(written.source, file=path, precision="fp32" if full else written.source.precision)
            spec = {"runtime": runtime, "file": str(RUNTIMES.get(runtime)().convert(source, place))}
            argument = json.dumps({**spec, "image_shape": self.metadata.image_shape})
            self._converted[path] = Program(TIMING, argument)
        return self._converted[path]

    def _write(self, forms: Forms, name: str) -> Written:
        full = path = self.folder / f"{name}.onnx"
        shape = self.metadata.image_shape
        folded = write_onnx(apply_forms(self.model, forms), full, shape, self.metadata.to_props())
        parity = check_parity(self.model, full, shape)
        if self.metadata.precision == "fp16":
            path = self.folder / f"{name}-fp16.onnx"
            to_fp16(full, path)
        elif self.metadata.precision == "int8":
            assert self.images is not None
            path = self.folder / f"{name}-int8.onnx"
            # A generic file may run on a processor whose int8 products saturate.
            generic = self.metadata.target == "generic"
            seven_bits = generic or (self.metadata.target == "cpu" and saturates_here())
            to_int8(full, path, self.images, seven_bits=seven_bits, threads=self.threads)
        return Written(
            path=path,
            full=full,
            params=count_params(folded),
            macs=count_macs(folded, shape),
            factorized=sum(isinstance(module, FactorChain) for module in folded.modules()),
            parity=parity,
            source=Source(
                path, shape, lambda: as_written(apply_forms(self.model, forms), shape), self.metadata.precision
            ),
        )


def copy_with(source: Path, path: Path, metadata: Metadata) -> None:
    """Rewrite a file with other metadata."""
    proto = onnx.load(source)
    onnx.helper.set_model_props(proto, metadata.to_props())
    path.write_bytes(proto.SerializeToString())
