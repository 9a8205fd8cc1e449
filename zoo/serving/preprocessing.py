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
from onnx import TensorProto, helper
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.export.layer_graph import IR_VERSION
from zoo.export.onnx_file import OPSET
from zoo.export.parity import LIMIT, relative_difference
from zoo.files import atomic
from zoo.latency.session import INPUT, OUTPUT, default_threads, open_session
from zoo.runs.file_metadata import Metadata
from zoo.serving.resize import GraphPart, resize

KEY = "preprocessing"
"""Entry in the metadata of a file that takes uint8 images of any size."""
PIXELS = "pixels"
"""Output of the preprocessing alone."""
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
    part = _part(image_shape, inner)
    graph.initializer.extend(part.constants)
    graph.node.extend([*part.nodes, *kept])
    # The shape after a cut cannot be inferred; a declared shape lets checks and optimisers continue from here.
    graph.value_info.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, [batch, *image_shape]))
    shape = [batch, "height", "width", image_shape[0]]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))


def write_preprocessing(path: Path, image_shape: tuple[int, int, int]) -> None:
    """Write the preprocessing alone as a graph: ``images``, uint8 (1, height, width, channels), to ``pixels``.

    Args:
        path: of the file.
        image_shape: (C, H, W) of the result, float (1, C, H, W) in [0, 1].
    """
    part = _part(image_shape, PIXELS)
    entry = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, "height", "width", image_shape[0]])
    result = helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, [1, *image_shape])
    graph = helper.make_graph(part.nodes, "preprocessing", [entry], [result], part.constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(proto, full_check=True)
    with atomic(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def _part(image_shape: tuple[int, int, int], result: str) -> GraphPart:
    """Return the nodes that turn uint8 images into the model's input."""
    _, height, width = image_shape
    part = GraphPart(_PREFIX)
    axes = part.constant([1, 2], np.int64)
    # The part cut out: (min(h, w H / W), min(w, h W / H)), at least one pixel; in whole numbers, rounded down.
    extent = part.add("Shape", INPUT, start=1, end=3)
    swapped = part.add("Gather", extent, part.constant([1, 0], np.int64))
    product = part.add("Mul", swapped, part.constant([height, width], np.int64))
    fitting = part.add("Div", product, part.constant([width, height], np.int64))
    cut = part.add("Max", part.add("Min", extent, fitting), part.constant([1], np.int64))
    start = part.add("Div", part.add("Sub", extent, cut), part.constant([2], np.int64))
    cropped = part.add("Slice", INPUT, start, part.add("Add", start, cut), axes)
    planes = part.add("Transpose", cropped, perm=[0, 3, 1, 2])
    floats = part.add("Cast", planes, to=TensorProto.FLOAT)
    tall = part.add("Gather", cut, part.constant(0, np.int64))
    wide = tall if height == width else part.add("Gather", cut, part.constant(1, np.int64))
    resized = resize(part, floats, (tall, wide), (height, width), "bicubic")
    part.add("Div", resized, part.constant(255), output=result)
    return part


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
    narrow = F.interpolate(part, size=(part_h, width), mode="bicubic", antialias=True, align_corners=False)
    # Clipped after each axis, as Pillow does.
    resized = F.interpolate(narrow.clamp(0, 255), size=(height, width), mode="bicubic", antialias=True)
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
