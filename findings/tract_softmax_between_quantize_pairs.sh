#!/usr/bin/env bash
# tract answers 1 everywhere for a Softmax that stands between two QuantizeLinear / DequantizeLinear pairs.
#
# Seen with tract 0.23.9, onnxruntime 1.32.0, onnx 1.20.1 on x86-64 Linux, 1 December 2026.
# Attention in a static int8 file (QDQ form) is such a Softmax: scores are dequantized, the softmax is taken, its
# result is quantized again. ONNX Runtime computes it; tract loads and runs the same file without a word, and every
# entry of the answer is the largest that the last quantization has. The same graph without the pairs is right in both.
# What to do: leave Softmax out of the operators that are quantized.
#
# Output seen: see the lines that this prints. Exits 0 as long as this is so, 1 when it changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q tract==0.23.9 onnxruntime==1.32.0 onnx==1.20.1 numpy
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import tract
from onnx import TensorProto, helper


def scalar(name, value, kind):
    return helper.make_tensor(name, kind, [], [value])


def graph(path, pairs):
    constants = [scalar("s0", 0.05, TensorProto.FLOAT), scalar("z0", 0, TensorProto.INT8),
                 scalar("s1", 1 / 255, TensorProto.FLOAT), scalar("z1", -128, TensorProto.INT8)]
    if pairs:
        nodes = [helper.make_node("QuantizeLinear", ["x", "s0", "z0"], ["q0"]),
                 helper.make_node("DequantizeLinear", ["q0", "s0", "z0"], ["d0"]),
                 helper.make_node("Softmax", ["d0"], ["p"], axis=-1),
                 helper.make_node("QuantizeLinear", ["p", "s1", "z1"], ["q1"]),
                 helper.make_node("DequantizeLinear", ["q1", "s1", "z1"], ["y"])]
    else:
        nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=-1)]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8])
    model = helper.make_model(helper.make_graph(nodes, "g", [value("x")], [value("y")], constants if pairs else []),
                              opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    onnx.save(model, path)


def in_onnxruntime(path, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def in_tract(path, x):
    model = tract.onnx().load(path).into_model().into_runnable()
    return np.asarray(model.run([x])[0].to_numpy())


x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
found = {}
for pairs in (False, True):
    path = f"pairs_{pairs}.onnx"
    graph(path, pairs)
    ort, tr = in_onnxruntime(path, x), in_tract(path, x)
    found[pairs] = abs(ort - tr).max()
    print(f"{'with' if pairs else 'without'} pairs: largest difference {found[pairs]:.4f}; tract's answers from "
          f"{tr.min():.4f} to {tr.max():.4f}, ONNX Runtime's from {ort.min():.4f} to {ort.max():.4f}")
sys.exit(0 if found[False] < 1e-5 and found[True] > 0.5 else "this has changed")
PYTHON
