"""Write a classifier as one ONNX file with a dynamic batch, and check that its graph is the compressed one."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo._version import __version__
from zoo.backbone.fold_batch_norm import fold_batch_norm
from zoo.errors import UserError, first_line
from zoo.export.pooling import pool_globally
from zoo.export.tied_weights import share_weights
from zoo.files import atomic
from zoo.latency.session import INPUT, OUTPUT

OPSET = 20
"""The first version with Gelu as one operator: ONNX Runtime fuses it with the bias before it. At 18, PyTorch's exporter
writes a GELU as five to eight operators in an order that no fusion of ONNX Runtime's knows."""
EXAMPLE_BATCH = 2
"""Batch for tracing: a batch of 1 may be taken for a constant."""
TOLERANCE = 0.01
"""Share by which the graph may hold more weights than the model, for constants that it multiplies by."""


def write_onnx(
    model: nn.Module,
    path: Path,
    image_shape: tuple[int, int, int],
    metadata: dict[str, str],
    opset: int = OPSET,
) -> nn.Module:
    """Fold BatchNorm and write a model as ONNX; an older file is replaced only by a complete, checked one.

    The graph maps ``images`` (batch, C, H, W) to ``logits`` (batch, classes), for any batch.

    Args:
        model: the deployed model, on the CPU; normalisation is part of it.
        path: the file to write.
        image_shape: (C, H, W).
        metadata: entries of the file's ``metadata_props``.
        opset: version of the ONNX operators; PyTorch's exporter writes 18 and a few that follow.

    Returns:
        The model with BatchNorm folded, whose parameters are those of the file.

    Raises:
        UserError: the architecture cannot be exported, or not in this version of the operators, or the graph holds more
            weights than the model.
    """
    folded = as_written(model, image_shape)
    proto = _trace(folded, image_shape, opset)
    pool_globally(proto)
    share_weights(proto)
    _strip(proto)
    proto.producer_name, proto.producer_version = "zoo", __version__
    onnx.helper.set_model_props(proto, metadata)
    weights, limit = weight_elements(proto), sum(p.numel() for p in folded.parameters() if p.ndim > 1)
    if weights > (1 + TOLERANCE) * limit:
        raise UserError(f"the ONNX graph has {weights} weights, the model {limit}: it is another model")
    with atomic(path) as temporary:
        try:
            onnx.checker.check_model(proto, full_check=True)
            temporary.write_bytes(proto.SerializeToString())
        except ValueError as error:  # protobuf's limit of 2 GB
            raise UserError(f"the model does not fit in one ONNX file ({first_line(error)})") from None
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise UserError(
                f"this architecture cannot be exported to ONNX: PyTorch wrote an invalid graph ({first_line(error)})"
            ) from None
    return folded


def as_written(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a copy of a model with BatchNorm folded and its attention written out: the network that is exported."""
    return _written_out(fold_batch_norm(model, image_shape))


def write_plainly(model: nn.Module, path: Path, image_shape: tuple[int, int, int], metadata: dict[str, str]) -> None:
    """Write a model as PyTorch's exporter alone does, with nothing folded, for comparison.

    Args:
        model: in eval mode, on the CPU.
        path: the file to write.
        image_shape: (C, H, W).
        metadata: entries of the file's ``metadata_props``.

    Raises:
        UserError: the architecture cannot be exported.
    """
    proto = _trace(_written_out(model), image_shape, OPSET)
    onnx.helper.set_model_props(proto, metadata)
    path.write_bytes(proto.SerializeToString())


def _written_out(model: nn.Module) -> nn.Module:
    """Make timm's attention multiply its matrices itself: the exporter knows fused attention only with four axes."""
    for module in model.modules():
        if getattr(module, "fused_attn", None) is True:
            module.fused_attn = False  # type: ignore[assignment]
    return model


def _trace(model: nn.Module, image_shape: tuple[int, int, int], opset: int) -> Any:
    images = torch.rand(EXAMPLE_BATCH, *image_shape, generator=torch.Generator().manual_seed(0))
    try:
        # Fused attention returns other strides than its exported operators, so views break.
        with _quiet(), sdpa_kernel(SDPBackend.MATH):
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps any exception of the architecture's code
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(f"this architecture cannot be exported to ONNX: {first_line(cause)}") from None
    assert program is not None
    proto = program.model_proto
    written = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:  # for a version that it does not know, the exporter writes another one without a word
        raise UserError(
            f"PyTorch's exporter cannot write opset {opset} of ONNX, it wrote {written}: leave it at {OPSET}"
        )
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's prints, warnings and log off the screen."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _strip(proto: Any) -> None:
    """Remove the notes on every node and value: they hold stack traces with paths of this machine."""
    graph = proto.graph
    for item in (
        proto,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def weight_elements(proto: Any) -> int:
    """Count the elements of the constants that a graph convolves or multiplies with, shared ones once."""
    constants = {tensor.name: math.prod(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = sum(math.prod(a.t.dims) for a in node.attribute if a.name == "value")
    products = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    used = {name for node in products for name in node.input[:2]}
    return sum(size for name, size in constants.items() if name in used)
