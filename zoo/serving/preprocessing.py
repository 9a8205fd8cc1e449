"""Preprocessing inside the exported graph, which then takes uint8 images of any size, as decoders give them.

`zoo.data` processes the files of an image folder in the same way before evaluation: the largest central part of the
model's aspect ratio is cut out and resized by an antialiasing cubic filter (Keys 1981, a = -0.5, Pillow's BICUBIC).
Images that have the model's size pass through unchanged.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.export.parity import LIMIT, relative_difference
from zoo.files import atomic
from zoo.latency.session import INPUT, OUTPUT, default_threads, open_session
from zoo.runs.file_metadata import Metadata

KEY = "preprocessing"
"""Entry in the metadata of a file that takes uint8 images of any size."""
NOTE = {
    "input": "uint8 (batch, height, width, channels), any height and width",
    "crop": "largest central part of the model's aspect ratio",
    "resize": "bicubic, antialiased",
}
_PREFIX = "preprocessing/"


def embed_preprocessing(
    path: Path, model: nn.Module, metadata: Metadata, limit: float = LIMIT
) -> dict[tuple[int, int], float]:
    """Add preprocessing to the front of an exported graph, and compare the result with PyTorch's.

    The graph then maps ``images``, uint8 (batch, height, width, channels) of any height and width, to ``logits``. The
    order of axes is that of Pillow, OpenCV, NumPy and browsers, so a client sends decoded pixels directly.

    Args:
        path: of a file that `zoo.export.exporter` wrote; replaced once the new graph has passed.
        model: the model it was exported from, on the CPU in eval mode.
        metadata: of the file.
        limit: largest difference of logits that passes; a file of low precision already differs by more.

    Returns:
        The largest difference of logits, relative to the largest logit, by the images' (height, width).

    Raises:
        UserError: logits differ by more than the limit.
    """
    proto = onnx.load(path)
    _prepend(proto, metadata.image_shape)
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(NOTE)
    onnx.checker.check_model(proto, full_check=True)
    with atomic(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        return check_preprocessing(model, temporary, metadata.image_shape, limit)


def _prepend(proto: Any, image_shape: tuple[int, int, int]) -> None:
    """Add the nodes to a graph, in place."""
    graph, inner = proto.graph, f"{_PREFIX}{INPUT}"
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == INPUT:
                node.input[i] = inner
    kept = list(graph.node)
    del graph.node[:]
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    constants, nodes = _nodes(image_shape, inner)
    graph.initializer.extend(constants)
    graph.node.extend([*nodes, *kept])
    # The shape after a cut cannot be inferred; a declared shape lets checks and optimisers continue from here.
    graph.value_info.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, [batch, *image_shape]))
    shape = [batch, "height", "width", image_shape[0]]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))


def _nodes(image_shape: tuple[int, int, int], result: str) -> tuple[list[Any], list[Any]]:
    """Return the constants and the nodes that turn uint8 images into the model's input."""
    _, height, width = image_shape
    constants = {
        "size": np.array([height, width], np.int64),
        "other_size": np.array([width, height], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "swap": np.array([1, 0], np.int64),
        "axes": np.array([1, 2], np.int64),
        "zero_level": np.array(0, np.float32),
        "levels": np.array(255, np.float32),
    }
    p = _PREFIX

    def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
        names = [name and (name if name in (INPUT, result) else p + name) for name in inputs.split(",")]
        outputs = [output if output == result else p + output]
        return helper.make_node(kind, names, outputs, name=p + output.removeprefix(p), **attributes)

    nodes = [
        # The part cut out: (min(h, w H / W), min(w, h W / H)), at least one pixel; in whole numbers, rounded down.
        node("Shape", INPUT, "extent", start=1, end=3),
        node("Gather", "extent,swap", "swapped"),
        node("Mul", "swapped,size", "product"),
        node("Div", "product,other_size", "fitting"),
        node("Min", "extent,fitting", "largest"),
        node("Max", "largest,one", "part"),
        node("Sub", "extent,part", "rest"),
        node("Div", "rest,two", "start"),
        node("Add", "start,part", "end"),
        node("Slice", f"{INPUT},start,end,axes", "cropped"),
        node("Cast", "cropped", "floats", to=TensorProto.FLOAT),
        # Not a Transpose: ONNX Runtime would move it past the Resize to a convolution in int8, and then fail.
        node("Einsum", "floats", "planes", equation="bhwc->bchw"),
        node(
            "Resize",
            "planes,,,size",
            "resized",
            mode="cubic",
            cubic_coeff_a=-0.5,
            antialias=1,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
            axes=[2, 3],
        ),
        # A cubic filter overshoots at edges.
        node("Clip", "resized,zero_level,levels", "clipped"),
        node("Div", "clipped,levels", result),
    ]
    return [numpy_helper.from_array(value, p + name) for name, value in constants.items()], nodes


def preprocess(images: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Preprocess in PyTorch as the graph does: uint8 (B, h, w, C) to float (B, C, H, W) in [0, 1].

    Args:
        images: uint8, any height and width.
        image_shape: (C, H, W) that the model takes.
    """
    _, height, width = image_shape
    h, w = images.shape[1:3]
    part_h, part_w = max(1, min(h, w * height // width)), max(1, min(w, h * width // height))
    top, left = (h - part_h) // 2, (w - part_w) // 2
    part = images[:, top : top + part_h, left : left + part_w].permute(0, 3, 1, 2).float()
    resized = F.interpolate(part, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 255) / 255


@torch.no_grad()
def check_preprocessing(
    model: nn.Module, path: Path, image_shape: tuple[int, int, int], limit: float
) -> dict[tuple[int, int], float]:
    """Compare the logits of a graph with preprocessing with PyTorch's, on images of several sizes and batches.

    Returns:
        The largest relative difference by (height, width).

    Raises:
        UserError: a difference is above the limit.
    """
    channels, height, width = image_shape
    session = open_session(path, "cpu", default_threads())
    generator = torch.Generator().manual_seed(2)
    sizes = ((height, width), (2 * height + 3, 3 * width + 1), (3 * height, 2 * width - 1), (height // 2 + 1, width))
    differences = {}
    for i, (h, w) in enumerate(sizes):
        images = torch.randint(0, 256, (i + 1, h, w, channels), dtype=torch.uint8, generator=generator)
        found = torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
        differences[h, w] = relative_difference(found, model(preprocess(images, image_shape)))
        if not differences[h, w] <= limit:
            raise UserError(
                f"with preprocessing inside, logits of {h} x {w} images differ from PyTorch's by "
                f"{differences[h, w]:.1e} of the largest, the limit is {limit:.0e}: do not use the file"
            )
    return differences
