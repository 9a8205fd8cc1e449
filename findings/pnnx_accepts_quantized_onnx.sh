#!/usr/bin/env bash
# pnnx converts a quantized ONNX file (QuantizeLinear, DequantizeLinear) with exit code 0 to files that ncnn refuses.
#
# Seen with pnnx 20261020, ncnn 1.0.20261020, onnx 1.23.2, onnxruntime 1.32.0, torch 2.15.0 on x86-64 Linux,
# 1 December 2026. The file is one convolution and a ReLU in int8 as every quantizer writes them (opset 18); the ONNX
# checker and ONNX Runtime accept it. pnnx prints "todo QuantizeLinear" among its progress, exits with 0 and writes
# the .ncnn.param and .ncnn.bin of a network with layers of the types QuantizeLinear, DequantizeLinear and
# pnnx.Expression, which ncnn does not have: load_param returns -1. The uint8 zero point has become "expr=None".
# What to do: load the file in ncnn and compare its answers before calling a conversion done; give ncnn fp32 files.
#
# Output seen:
#   ONNX Runtime answers (1, 8, 16, 16); pnnx exits 0, wrote q.ncnn.param: True
#   layers unknown to ncnn: DequantizeLinear QuantizeLinear pnnx.Expression; load_param returns -1
# Exits 0 as long as this is so, 1 when it changes. It needs Python 3.11 or newer and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q pnnx==20261020 ncnn==1.0.20261020 torch==2.15.0 onnx==1.23.2 onnxruntime==1.32.0 numpy
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import subprocess
import sys
from pathlib import Path

import ncnn
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

kernel = np.random.default_rng(0).integers(-127, 128, (8, 3, 3, 3), dtype=np.int8)
constants = {
    "w": kernel, "w_scale": np.float32(0.01), "w_zero": np.int8(0), "x_scale": np.float32(1 / 255), "x_zero": np.uint8(0)
}
nodes = [
    helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"]),
    helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_d"]),
    helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_d"]),
    helper.make_node("Conv", ["x_d", "w_d"], ["c"], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["c"], ["y"]),
]
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 16, 16])
initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
model = helper.make_model(
    helper.make_graph(nodes, "g", [x], [y], initializers), opset_imports=[helper.make_opsetid("", 18)]
)
model.ir_version = 10
onnx.checker.check_model(model)
onnx.save(model, "q.onnx")
session = onnxruntime.InferenceSession("q.onnx", providers=["CPUExecutionProvider"])
answer = session.run(None, {"x": np.zeros((1, 3, 16, 16), np.float32)})[0]

done = subprocess.run([str(Path(sys.executable).parent / "pnnx"), "q.onnx"], capture_output=True, text=True)
param = Path("q.ncnn.param")
print(f"ONNX Runtime answers {answer.shape}; pnnx exits {done.returncode}, wrote {param}: {param.exists()}")
layers = {line.split()[0] for line in param.read_text().splitlines()[2:]} if param.exists() else set()
unknown = sorted(layers - {"Input", "Split", "Convolution", "ReLU"})
loaded = ncnn.Net().load_param(str(param))
print(f"layers unknown to ncnn: {' '.join(unknown)}; load_param returns {loaded}")
sys.exit(0 if done.returncode == 0 and unknown and loaded == -1 else 1)
PYTHON
