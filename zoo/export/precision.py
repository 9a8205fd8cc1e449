"""Write a file's graph in lower precision: 8-bit integers, or half precision."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from zoo.errors import UserError, first_line
from zoo.latency.cache import cpu_features
from zoo.latency.session import INPUT

CALIBRATION_BATCH = 32
QUANTIZED = ["Conv", "Gemm", "MatMul", "Relu", "Clip"]
"""Operators whose products are taken in integers, and activations that become the ends of the range of their results.
Left out of this list, an activation would be computed in floats between two more conversions. Other elementwise
operators follow if ONNX Runtime can."""
FLOAT_RESULTS = ["MatMul"]
"""Operators whose sums stay floats: a bias, GELU, softmax or residual sum in floats follows. Rounding them first costs
accuracy and time, and tract answers 1 for a softmax between two roundings."""
FAST_INTEGERS = {"avx512_vnni", "avx_vnni", "asimddp"}
"""Instructions that add products of unsigned and signed bytes in 32 bits; without them sums saturate at 16."""


class _Images:
    """Feeds calibration images to ONNX Runtime, batch by batch."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._batches = iter(range(0, len(images), CALIBRATION_BATCH))
        self._images = images

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        start = next(self._batches, None)
        return None if start is None else {INPUT: self._images[start : start + CALIBRATION_BATCH]}


def saturates_here() -> bool:
    """Return whether sums of byte products saturate on this processor, so that weights should have seven bits."""
    return not FAST_INTEGERS & cpu_features()


def to_int8(source: Path, path: Path, images: NDArray[np.float32], *, seven_bits: bool, threads: int) -> None:
    """Quantise a file statically: QDQ, weights int8 per output channel, activations uint8 per tensor.

    Ranges are the least and the largest value that each activation takes on the images.

    Args:
        source: a file in fp32.
        path: the file to write; it keeps the metadata.
        images: (n, C, H, W) in [0, 1], as the graph takes them.
        seven_bits: weights use seven of their eight bits, so that no processor saturates; see `saturates_here`.
        threads: of one operator, while the ranges are measured.

    Raises:
        UserError: the graph cannot be quantised.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    props = onnx.load(source, load_external_data=False).metadata_props
    with TemporaryDirectory() as folder, _quiet(), _threads_of_sessions(threads):
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                path,
                _Images(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                per_channel=True,
                reduce_range=seven_bits,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": FLOAT_RESULTS},
            )
            _finish(onnx.load(path), props, path)
        except Exception as error:  # whatever its passes over the graph raise
            raise UserError(f"ONNX Runtime cannot quantise this graph: {first_line(error)}") from None


def to_fp16(source: Path, path: Path) -> None:
    """Write a file's graph in half precision; images and logits stay fp32.

    Args:
        source: a file in fp32.
        path: the file to write; it keeps the metadata.

    Raises:
        UserError: the graph cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel as Graph

    proto = onnx.load(source)
    props = list(proto.metadata_props)
    with _quiet():
        try:
            graph = Graph(convert_float_to_float16(proto, keep_io_types=True))
            graph.topological_sort()  # the cast of the images is put last
            _finish(graph.model, props, path)
        except Exception as error:  # whatever its passes over the graph raise
            raise UserError(f"ONNX Runtime cannot write this graph in fp16: {first_line(error)}") from None


def _finish(proto: Any, props: Any, path: Path) -> None:
    onnx.helper.set_model_props(proto, {entry.key: entry.value for entry in props})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


@contextmanager
def _threads_of_sessions(threads: int) -> Iterator[None]:
    """Give a number of threads to the sessions that are opened inside: ONNX Runtime's quantisation takes none."""
    default = ort.SessionOptions

    def limited() -> Any:
        options = default()
        options.intra_op_num_threads = threads
        return options

    ort.SessionOptions = limited
    try:
        yield
    finally:
        ort.SessionOptions = default


@contextmanager
def _quiet() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
