#!/usr/bin/env bash
# ncnn on x86 rounds the weights of fully connected layers to fp16 by default, from a file in fp32, but no convolution's.
#
# Seen with ncnn 1.0.20261020, numpy 2.4.6 on x86-64 Linux with AVX2 and F16C, 1 December 2026. Two networks of one
# layer are written by hand with weights in fp32. With the default options of Net, the convolution answers as NumPy
# does, to the rounding of fp32; the InnerProduct answers as if its weights had been rounded to fp16, a thousandth
# off. Nothing is logged. The option is use_fp16_storage, and it is True by default on a processor whose arithmetic
# is fp32; use_fp16_packed and use_fp16_arithmetic make no difference here. A classifier thus loses digits in its
# head alone, where a comparison layer by layer up to the last convolution sees nothing.
# What to do: net.opt.use_fp16_storage = False before load_param, also for files converted with pnnx's fp16=0.
#
# Output seen (largest difference from NumPy in fp64, over the largest output):
#   convolution: default 1.0e-07, use_fp16_storage=False 1.0e-07
#   fully connected: default 7.1e-04, use_fp16_storage=False 2.8e-07; from fp16 weights: 5.8e-07
# Exits 0 as long as this is so, 1 when it changes. It needs Python 3.11 or newer and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q ncnn==1.0.20261020 numpy==2.4.6
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import struct
import sys
from pathlib import Path

import ncnn
import numpy as np

random = np.random.default_rng(0)


def answer(layer: str, weight: np.ndarray, x: np.ndarray, *off: str) -> np.ndarray:
    Path("net.param").write_text(f"7767517\n2 2\nInput in0 0 1 in0\n{layer}={weight.size}\n")
    Path("net.bin").write_bytes(struct.pack("<I", 0) + weight.tobytes())  # 0: fp32 follows
    net = ncnn.Net()
    for option in off:
        setattr(net.opt, option, False)
    assert net.load_param("net.param") == 0
    assert net.load_model("net.bin") == 0
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x).clone())
    return np.array(extractor.extract("out0")[1])


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(abs(found - expected).max() / abs(expected).max())


kernel = random.standard_normal((8, 4, 3, 3)).astype(np.float32)
image = random.random((4, 8, 8), dtype=np.float32)
windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (3, 3), (1, 2))
convolved = np.einsum("chwij,ncij->nhw", windows, kernel)
layer = "Convolution conv 1 1 in0 out0 0=8 1=3 6"
conv = [apart(answer(layer, kernel, image, *off), convolved) for off in ((), ("use_fp16_storage",))]
print("convolution: default {:.1e}, use_fp16_storage=False {:.1e}".format(*conv))

matrix = random.standard_normal((1, 64)).astype(np.float32)
x = random.random(64, dtype=np.float32)
layer = "InnerProduct head 1 1 in0 out0 0=1 2"
default, exact = (answer(layer, matrix, x, *off) for off in ((), ("use_fp16_storage",)))
product, rounded = (weight.astype(np.float64) @ x for weight in (matrix, matrix.astype(np.float16)))
head = [apart(default, product), apart(exact, product), apart(default, rounded)]
print("fully connected: default {:.1e}, use_fp16_storage=False {:.1e}; from fp16 weights: {:.1e}".format(*head))
same = max(conv) < 1e-6 and head[0] > 1e-4 and max(head[1:]) < 1e-6
sys.exit(0 if same else 1)
PYTHON
