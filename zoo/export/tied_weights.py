"""Write weights that several layers share once: PyTorch's exporter repeats those that it transposes."""

import hashlib
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

FEWEST = 256
"""Elements from which on a tensor is compared: smaller ones are not worth a node."""


def share_weights(proto: Any) -> None:
    """Keep one of several equal weights of a graph, in place: the function stays the same.

    A matrix that is the transpose of another becomes a Transpose of it, which runtimes compute when they open the file.
    The exporter writes both if a model applies a tied linear layer to vectors and to sequences, or a matrix and its
    transpose.

    Args:
        proto: an ONNX model.
    """
    graph = proto.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # a graph within the graph may read a tensor by its name
    first: dict[str, str] = {}
    """Name of the first tensor with some content."""
    renamed: dict[str, str] = {}
    turned: list[Any] = []
    kept: list[Any] = []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim < 2 or value.size < FEWEST:
            kept.append(tensor)
            continue
        same, transposed = first.get(_content(value)), first.get(_content(value.T)) if value.ndim == 2 else None
        if same is not None:
            renamed[tensor.name] = same
        elif transposed is not None:
            turned.append(helper.make_node("Transpose", [transposed], [tensor.name], f"{tensor.name}/T", perm=[1, 0]))
        else:
            first[_content(value)] = tensor.name
            kept.append(tensor)
    if not renamed and not turned:
        return
    nodes = [*turned, *graph.node]
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def _content(value: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return f"{value.dtype} {value.shape} {digest}"
