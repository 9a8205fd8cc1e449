"""One layer in one form as a small ONNX graph, to measure its time."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from zoo.export.forms import Form, Geometry, Op

OPSET = 18
IR_VERSION = 10


def layer_graph(problem: Geometry, form: Form) -> bytes:
    """Return a graph ``x`` to ``y`` of one image that applies a form with random weights, a bias and a ReLU.

    A convolution is followed by a pooling over one pixel. It changes nothing, but it is computed in blocked layout,
    as the next layer of a network would be, so a form that leaves that layout pays for the way back.
    """
    rng = np.random.default_rng(0)
    nodes, constants, x = [], [], "x"
    ops = problem.ops(form)
    for i, op in enumerate(ops):
        last = i == len(ops) - 1
        made, tensors = (_linear if problem.kind == "linear" else _conv)(op, i, x, last, rng)
        nodes += made
        constants += tensors
        x = f"y{i}"
    nodes.append(helper.make_node("Relu", [x], ["relu"]))
    if problem.kind == "conv":
        nodes.append(helper.make_node("MaxPool", ["relu"], ["y"], kernel_shape=[1, 1]))
    else:
        nodes.append(helper.make_node("Identity", ["relu"], ["y"]))
    h, w = problem.size
    shape = [1, w, problem.op.inputs] if problem.kind == "linear" else [1, problem.op.inputs, h, w]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "layer", [given], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()


def layer_network(problem: Geometry, form: Form) -> nn.Module:
    """Return the same layer in PyTorch, for runtimes that do not read ONNX files."""
    layers: list[nn.Module] = []
    ops = problem.ops(form)
    for i, op in enumerate(ops):
        bias = i == len(ops) - 1
        if problem.kind == "linear":
            layers.append(nn.Linear(op.inputs, op.outputs, bias))
        else:
            sizes = (op.inputs, op.outputs, op.kernel, op.stride, op.padding, op.dilation)
            layers.append(nn.Conv2d(*sizes, bias=bias))
    return nn.Sequential(*layers, nn.ReLU()).eval()


def input_shape(problem: Geometry) -> tuple[int, ...]:
    """Return the shape of ``x``."""
    h, w = problem.size
    return (1, w, problem.op.inputs) if problem.kind == "linear" else (1, problem.op.inputs, h, w)


def _weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    fan_in = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape) / fan_in**0.5).astype(np.float32)


def _conv(op: Op, i: int, x: str, last: bool, rng: np.random.Generator) -> tuple[list, list]:
    tensors = [numpy_helper.from_array(_weight(rng, op.outputs, op.inputs, *op.kernel), f"w{i}")]
    if last:
        tensors.append(numpy_helper.from_array(_weight(rng, op.outputs), f"b{i}"))
    node = helper.make_node(
        "Conv",
        [x, *(tensor.name for tensor in tensors)],
        [f"y{i}"],
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=[*op.padding, *op.padding],
        dilations=op.dilation,
    )
    return [node], tensors


def _linear(op: Op, i: int, x: str, last: bool, rng: np.random.Generator) -> tuple[list, list]:
    tensors = [numpy_helper.from_array(np.ascontiguousarray(_weight(rng, op.outputs, op.inputs).T), f"w{i}")]
    if not last:
        return [helper.make_node("MatMul", [x, f"w{i}"], [f"y{i}"])], tensors
    tensors.append(numpy_helper.from_array(_weight(rng, op.outputs), f"b{i}"))
    product = helper.make_node("MatMul", [x, f"w{i}"], [f"p{i}"])
    return [product, helper.make_node("Add", [f"p{i}", f"b{i}"], [f"y{i}"])], tensors
