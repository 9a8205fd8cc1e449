"""Write the mean over a map as global pooling, which ONNX Runtime has in its blocked layout."""

from typing import Any

from onnx import helper, numpy_helper

MAP_AXES = {2, 3}


def pool_globally(proto: Any) -> None:
    """Write each mean over the height and width of a map as GlobalAveragePool, in place: the function stays the same.

    PyTorch's exporter writes ReduceMean. For it, ONNX Runtime converts the whole map back from the blocked layout of
    its convolutions, and into it again if a gate of few channels (squeeze and excitation) multiplies the map.

    Args:
        proto: an ONNX model whose values have known shapes.
    """
    graph = proto.graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.input, *graph.value_info)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    axes: set[str] = set()
    for node in graph.node:
        is_mean = node.op_type == "ReduceMean" and len(node.input) == 2
        if is_mean and ranks.get(node.input[0]) == 4 and _axes(constants.get(node.input[1])) == MAP_AXES:
            nodes += _pooling(node)
            axes.add(node.input[1])
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for name in axes - {name for node in nodes for name in node.input}:
        graph.initializer.remove(constants[name])


def _axes(tensor: Any | None) -> set[int]:
    """Return the axes of a tensor of four that a constant lists, counted from the front."""
    return set() if tensor is None else {int(axis) % 4 for axis in numpy_helper.to_array(tensor).flatten()}


def _pooling(mean: Any) -> list[Any]:
    keeps = next((attribute.i for attribute in mean.attribute if attribute.name == "keepdims"), 1)
    source, target = mean.input[0], mean.output[0]
    if keeps:
        return [helper.make_node("GlobalAveragePool", [source], [target], mean.name)]
    pooled = f"{target}_pooled"
    return [
        helper.make_node("GlobalAveragePool", [source], [pooled], f"{mean.name}_pooled"),
        helper.make_node("Flatten", [pooled], [target], mean.name, axis=1),
    ]
