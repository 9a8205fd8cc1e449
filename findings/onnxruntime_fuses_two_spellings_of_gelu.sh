#!/usr/bin/env bash
# ONNX Runtime fuses two of six equal spellings of GELU, and PyTorch's exporter writes another below opset 20.
#
# Seen with torch 2.15.0, onnx 1.23.2, onnxruntime 1.32.0, onnxscript 0.7.2 on x86-64 Linux, 1 December 2026.
# GELU is x (1 + erf(x / sqrt 2)) / 2. With the division as a Div, "x (1 + erf) 0.5" and "(0.5 x) (1 + erf)" become one
# Gelu; "x (0.5 (1 + erf))" stays five operators, and so does every order if x is multiplied by 1 / sqrt 2 instead. At
# opset 18 torch.nn.GELU() becomes the third, so that no transformer exported there has a fused GELU.
# At opset 20 it is written as the operator Gelu. Nothing is logged.
# What to do: export at opset 20, or write the order that is fused; count the operators of the optimized graph.
#
# Output seen:
#   Div, x (1 + erf) 0.5: Gelu
#   Div, (0.5 x) (1 + erf): Gelu
#   Div, x (0.5 (1 + erf)): Div Erf Add Mul Mul
#   Mul, x (1 + erf) 0.5: Mul Erf Add Mul Mul
#   Mul, (0.5 x) (1 + erf): Mul Erf Add Mul Mul
#   Mul, x (0.5 (1 + erf)): Mul Erf Add Mul Mul
#   torch.onnx.export, opset 18: Div Erf Add Mul Mul
#   torch.onnx.export, opset 20: Gelu
# Exits 0 as long as this is so, 1 when it changes. It needs Python 3.11 or newer and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q torch==2.15.0 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2 numpy
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import contextlib
import io
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

FUSED, CONSTANTS = ["Gelu"], {"root": 2**0.5, "inverse": 2**-0.5, "one": 1.0, "half": 0.5}
ORDERS = {
    "x (1 + erf) 0.5": (("x", "sum"), ("t", "half")),
    "(0.5 x) (1 + erf)": (("x", "half"), ("t", "sum")),
    "x (0.5 (1 + erf))": (("sum", "half"), ("x", "t")),
}


def optimized(file: str | bytes) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = "optimized.onnx", 3
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load("optimized.onnx").graph.node]


def spelled(scale: tuple[str, str], order: tuple[tuple[str, str], tuple[str, str]]) -> bytes:
    operator, constant = scale
    nodes = [
        helper.make_node(operator, ["x", constant], ["d"]), helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["sum"]), helper.make_node("Mul", order[0], ["t"]),
        helper.make_node("Mul", order[1], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy")
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model.SerializeToString()


def exported(opset: int) -> str:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        torch.onnx.export(torch.nn.GELU(), (torch.zeros(1, 64),), f"{opset}.onnx", opset_version=opset, dynamo=True)
    return f"{opset}.onnx"


seen = {}
for scale in (("Div", "root"), ("Mul", "inverse")):
    for name, order in ORDERS.items():
        seen[f"{scale[0]}, {name}"] = optimized(spelled(scale, order))
for opset in (18, 20):
    seen[f"torch.onnx.export, opset {opset}"] = optimized(exported(opset))
for name, operators in seen.items():
    print(f"{name}: {' '.join(operators)}")
fused = [name for name, operators in seen.items() if operators == FUSED]
as_before = fused == ["Div, x (1 + erf) 0.5", "Div, (0.5 x) (1 + erf)", "torch.onnx.export, opset 20"]
sys.exit(0 if as_before else 1)
PYTHON
