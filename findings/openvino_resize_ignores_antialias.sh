#!/usr/bin/env bash
# OpenVINO's ONNX reader drops `antialias` and `exclude_outside` of Resize without a word.
#
# Seen with openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.20.1, pillow 12.3.0 on x86-64 Linux, 1 December 2026.
# A graph of one Resize (cubic, cubic_coeff_a -0.5, antialias 1, exclude_outside 1), which is how a model is given
# Pillow's bicubic filter, halves and thirds a picture of noise in [0, 1]. ONNX Runtime agrees with Pillow to 1e-3.
# OpenVINO reads, compiles and runs the same file, and its output is that of the graph with both attributes left out:
# up to 0.57 of 1 away. Nothing is logged. A classifier whose file resizes photographs answers otherwise there.
# What to do: compute the resize from products with filter matrices, which every runtime agrees on.
#
# Output seen:
#   96 to 48: from Pillow: ONNX Runtime 0.0000, OpenVINO 0.3314; OpenVINO from the graph without the attributes 0.0000
#   96 to 32: from Pillow: ONNX Runtime 0.0000, OpenVINO 0.5749; OpenVINO from the graph without the attributes 0.0000
# Exits 0 as long as this is so, 1 when it changes. It needs Python 3.11 or newer and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.20.1 pillow==12.3.0 numpy
"$work/env/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from PIL import Image


def graph(size: int, **attributes: int) -> bytes:
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 1, size, size])
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="cubic", cubic_coeff_a=-0.5,
        coordinate_transformation_mode="half_pixel", **attributes,
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 96, 96])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, size, size])
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], [sizes]), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model.SerializeToString()


def onnx_runtime(file: bytes, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def open_vino(file: bytes, x: np.ndarray) -> np.ndarray:
    core = openvino.Core()
    model = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return model(x)[0]


x = np.random.default_rng(0).random((1, 1, 96, 96), np.float32)
as_before = True
for size in (48, 32):
    asked, plain = graph(size, antialias=1, exclude_outside=1), graph(size)
    pillow = np.asarray(Image.fromarray(x[0, 0], "F").resize((size, size), Image.Resampling.BICUBIC))
    ort, ov = onnx_runtime(asked, x), open_vino(asked, x)
    far = abs(ov - pillow).max()
    ort_far, same = abs(ort - pillow).max(), abs(ov - onnx_runtime(plain, x)).max()
    print(f"96 to {size}: from Pillow: ONNX Runtime {ort_far:.4f}, OpenVINO {far:.4f}; OpenVINO from the graph without "
          f"the attributes {same:.4f}")
    as_before &= bool(ort_far < 1e-3 and far > 0.1 and same < 1e-3)
sys.exit(0 if as_before else "this has changed")
PYTHON
