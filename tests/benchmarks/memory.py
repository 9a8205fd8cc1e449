"""Time work on a CPU with and without keeping freed memory, in one process, in alternating blocks.

Usage: python tests/benchmarks/memory.py [--archs vgg16_bn,resnet18] [--methods dense,robust_lowrank]
       [--models resnet18.robust_lowrank75_at_c10,resnet18.robust_lowrank90_at_c10] [--blocks 3]

Times training steps (bf16, batch 128) of each method on each architecture, then what attacks ask of each published
model: forward passes in fp32 and gradients in bf16. Prints medians, their ratio, and the system's share of the time.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from training_step import BATCH, IMAGE, Trainee

from zoo.attacks._attacked_model import AttackedModel
from zoo.attacks._losses import margin
from zoo.backbone.folded import folded
from zoo.hub.models import load
from zoo.runs.provenance import hardware
from zoo.runtime.memory import keep_freed_memory

CALLS = 6
"""Per block; the first two fill the memory or give it back and are not counted."""
IMAGES = 256
"""That an attack asks about."""


def block(work: Callable[[], object]) -> tuple[list[float], float]:
    """Return the seconds of each call, and the share of system time in the block."""
    for _ in range(2):
        work()
    before, seconds = os.times(), []
    for _ in range(CALLS - 2):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    after = os.times()
    system, user = after.system - before.system, after.user - before.user
    return seconds, system / (system + user)


def compare(name: str, work: Callable[[], object], blocks: int) -> None:
    """Print one line."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    system: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(blocks):
        for keep in (False, True):
            assert keep_freed_memory(keep), "needs glibc"
            times, share = block(work)
            seconds[keep] += times
            system[keep].append(share)
    given, kept = (statistics.median(seconds[keep]) for keep in (False, True))
    shares = [statistics.mean(system[keep]) for keep in (False, True)]
    print(
        f"{name:45} {given * 1e3:6.0f} ms given back, {kept * 1e3:6.0f} ms kept: {kept / given:.2f}; "
        f"system time {shares[0]:.0%} and {shares[1]:.0%}",
        flush=True,
    )


def steps(arch: str, method: str, blocks: int) -> None:
    """Compare training steps."""
    trainee = Trainee(arch, method, bf16=True, channels_last=True)
    images, labels = torch.rand(BATCH, *IMAGE), torch.randint(0, 10, (BATCH,))
    compare(f"{arch} {method}: step", lambda: trainee.step(images, labels), blocks)


def questions(name: str, blocks: int) -> None:
    """Compare what attacks ask of a model."""
    attacked = AttackedModel(folded(load(name).eval(), IMAGE), gradients="bf16")
    images, labels = torch.rand(IMAGES, *IMAGE), torch.randint(0, 10, (IMAGES,))
    compare(f"{name}: forward", lambda: attacked.estimate(images), blocks)
    compare(f"{name}: gradient", lambda: attacked.gradient(images, margin, labels), blocks)


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", default="vgg16_bn,resnet18")
    parser.add_argument("--methods", default="dense,robust_lowrank")
    parser.add_argument("--models", default="resnet18.robust_lowrank75_at_c10,resnet18.robust_lowrank90_at_c10")
    parser.add_argument("--blocks", type=int, default=3)
    options = parser.parse_args()
    print(f"{hardware(torch.device('cpu'))}, torch {torch.__version__}")
    archs, models = (list(filter(None, names.split(","))) for names in (options.archs, options.models))
    for arch in archs:
        for method in options.methods.split(","):
            steps(arch, method, options.blocks)
    for name in models:
        questions(name, options.blocks)


if __name__ == "__main__":
    main()
