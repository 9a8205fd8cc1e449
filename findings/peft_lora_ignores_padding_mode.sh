#!/usr/bin/env bash
# PEFT's LoRA on a convolution ignores its padding mode and its dilation: merging changes the answers, silently.
#
# Seen with peft 0.21.2, torch 2.15.0 on x86-64 Linux, 1 December 2026. The adapter of a Conv2d is a second
# convolution with the kernel size, stride and padding of the first, but zero padding and dilation 1. With
# padding_mode reflect, circular or replicate the network is trained with zero-padded updates, and merge_and_unload
# adds them to a kernel that pads otherwise: the outputs at the border change by a third to a half of the largest one.
# There is no warning. A dilated convolution is wrapped without complaint and fails at its first forward pass; a grouped
# one works until it is merged. Plain ones merge to rounding.
# What to do: compare outputs before and after a merge; leave such layers out of target_modules.
#
# Output seen (largest difference over the largest output):
#   zeros 0.0000, reflect 0.3926, circular 0.4937, replicate 0.4546; warnings: 0
#   dilation 2: forward pass: RuntimeError; groups 2: merge: NotImplementedError
# Exits 0 as long as this is so, 1 when it changes. It needs Python 3.11 or newer and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q peft==0.21.2 torch==2.15.0 numpy
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from torch import nn


class Net(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def adapted(**options: object) -> nn.Module:
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["conv"], init_lora_weights=False)  # an adapter that has been trained
    return get_peft_model(Net(**options), lora).eval()


x = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))
apart = {}
with warnings.catch_warnings(record=True) as said, torch.no_grad():
    warnings.simplefilter("always")
    for mode in ("zeros", "reflect", "circular", "replicate"):
        model = adapted(padding=1, padding_mode=mode)
        before = model(x)
        apart[mode] = ((model.merge_and_unload()(x) - before).abs().max() / before.abs().max()).item()
print(", ".join(f"{mode} {value:.4f}" for mode, value in apart.items()) + f"; warnings: {len(said)}")

failures = {"dilation 2: forward pass": "none", "groups 2: merge": "none"}
try:
    adapted(padding=2, dilation=2)(x)
except Exception as error:
    failures["dilation 2: forward pass"] = type(error).__name__
grouped = adapted(padding=1, groups=2)
grouped(x)
try:
    grouped.merge_and_unload()
except Exception as error:
    failures["groups 2: merge"] = type(error).__name__
print("; ".join(f"{what}: {error}" for what, error in failures.items()))
as_before = (
    apart.pop("zeros") < 1e-5 and min(apart.values()) > 0.2 and not said
    and [*failures.values()] == ["RuntimeError", "NotImplementedError"]
)
sys.exit(0 if as_before else 1)
PYTHON
