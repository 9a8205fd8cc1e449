"""Time training steps with and without keeping freed memory, in one process, in alternating blocks of steps.

Usage: python tests/benchmarks/memory.py [--archs vgg16_bn,resnet18] [--methods dense,robust_lowrank] [--blocks 3]

Prints the median step of each, their ratio, and the share of the time that the system took. bf16, batch 128.
"""

import argparse
import os
import statistics

import torch
from training_step import BATCH, IMAGE, Trainee

from zoo.provenance import hardware
from zoo.training.memory import keep_freed_memory

STEPS = 6
"""Per block; the first two fill the memory or give it back and are not counted."""


def block(trainee: Trainee, images: torch.Tensor, labels: torch.Tensor) -> tuple[list[float], float]:
    """Return the seconds of each step, and the share of system time in the block."""
    for _ in range(2):
        trainee.step(images, labels)
    before = os.times()
    seconds = [trainee.step(images, labels)[0] for _ in range(STEPS - 2)]
    after = os.times()
    system, user = after.system - before.system, after.user - before.user
    return seconds, system / (system + user)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", default="vgg16_bn,resnet18")
    parser.add_argument("--methods", default="dense,robust_lowrank")
    parser.add_argument("--blocks", type=int, default=3)
    options = parser.parse_args()
    print(f"batch {BATCH}, bf16, {hardware(torch.device('cpu'))}, torch {torch.__version__}")
    images, labels = torch.rand(BATCH, *IMAGE), torch.randint(0, 10, (BATCH,))
    for arch in options.archs.split(","):
        for method in options.methods.split(","):
            trainee = Trainee(arch, method, bf16=True, channels_last=True)
            seconds: dict[bool, list[float]] = {False: [], True: []}
            system: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(options.blocks):
                for keep in (False, True):
                    assert keep_freed_memory(keep), "needs glibc"
                    times, share = block(trainee, images, labels)
                    seconds[keep] += times
                    system[keep].append(share)
            given, kept = (statistics.median(seconds[keep]) for keep in (False, True))
            shares = [statistics.mean(system[keep]) for keep in (False, True)]
            print(
                f"{arch:10} {method:15} {given * 1e3:6.0f} ms given back, {kept * 1e3:6.0f} ms kept: "
                f"{kept / given:.2f}; system time {shares[0]:.0%} and {shares[1]:.0%}"
            )


if __name__ == "__main__":
    main()
