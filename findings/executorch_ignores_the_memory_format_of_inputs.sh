#!/usr/bin/env bash
# ExecuTorch's Python runtime reads a channels_last input as if it were contiguous, without a word.
#
# Seen with executorch 1.5.1, torch 2.14.1 on x86-64 Linux, 1 December 2026. A small convolutional classifier is
# exported from a contiguous example, with the XNNPACK backend and without one. Both programs answer as PyTorch does
# for contiguous images. Given the same images in channels_last, which PyTorch users keep them in for speed, the shape
# and the sizes match, the strides are not looked at, and the pixels are read in another order: the logits are those of
# another picture. Nothing is raised or logged.
# What to do: call .contiguous() on every input, whatever the format in which the model was trained.
#
# Output seen (largest difference of the logits from PyTorch's, over the largest logit):
#   xnnpack: contiguous 0.0000, channels_last 0.4354; the answer to the pixels in their order in memory: True
#   portable: contiguous 0.0000, channels_last 0.4354; the answer to the pixels in their order in memory: True
# Exits 0 as long as this is so, 1 when it changes. It needs Python 3.11 or 3.12 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q executorch==1.5.1 torch==2.14.1 numpy
cd "$work"
"$work/env/bin/python" - <<'PYTHON' 2>errors.txt || { tail -5 errors.txt >&2; exit 1; }
import sys

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 4)).eval()
images = torch.rand(1, 3, 16, 16)
last = images.contiguous(memory_format=torch.channels_last)
in_memory = last.permute(0, 2, 3, 1).reshape(1, 3, 16, 16)  # the bytes of `last`, read as a contiguous tensor
with torch.no_grad():
    wanted, misread = network(images), network(in_memory)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


as_before = True
for name, backend in (("xnnpack", [XnnpackPartitioner()]), ("portable", [])):
    program = to_edge_transform_and_lower(torch.export.export(network, (images,)), partitioner=backend).to_executorch()
    method = Runtime.get().load_program(program.buffer).load_method("forward")
    plain, other = method.execute([images])[0].clone(), method.execute([last])[0].clone()
    same = apart(other, misread) < 1e-4
    print(
        f"{name}: contiguous {apart(plain, wanted):.4f}, channels_last {apart(other, wanted):.4f}; "
        f"the answer to the pixels in their order in memory: {same}"
    )
    as_before &= apart(plain, wanted) < 1e-4 and apart(other, wanted) > 0.05 and same
sys.exit(0 if as_before else 1)
PYTHON
