"""Say where the time of a recipe's training step goes: the device's kernels, and what it waits for.

Usage: python tests/benchmarks/step_profile.py RECIPE [--steps 5] [--rows 20] [-- OPTIONS]

A model that is thrown away is trained for a few steps. OPTIONS are those of zoo train, such as: -- --data-dir DATA
--cuda-graph false. Prints milliseconds a step by the clock without the profiler, how long the device computes, in how
many kernels, and the kernels that take longest; on a CPU operators stand for kernels.
"""

import argparse
from typing import Any

import lightning.pytorch as pl
import torch
from collection import TIMED, WARM, Pace, few_steps
from torch.profiler import ProfilerActivity, profile

from zoo.cli._parser import Parser
from zoo.cli.train import read_recipe
from zoo.training.parts import Parts


class Profiled(pl.Callback):
    """Profile some steps after the timed ones."""

    def __init__(self, steps: int) -> None:
        self.first, self.last = WARM + TIMED, WARM + TIMED + steps
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self.profile = profile(activities=activities)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start and stop the profiler."""
        if trainer.global_step == self.first:
            self.profile.start()
        if trainer.global_step == self.last:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.profile.stop()


def main() -> None:
    """Train a few steps and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20)
    options, extra = parser.parse_known_args()
    words = ["--config", options.recipe, *(word for word in extra if word != "--")]
    config, plugged, _ = read_recipe(Parser(prog="zoo train"), words)
    pace, profiled = Pace(), Profiled(options.steps)
    few_steps(config, Parts(*plugged.values()), [pace, profiled], WARM + TIMED + options.steps)
    on_device = torch.cuda.is_available() and config.device != "cpu"
    found: dict[str, tuple[float, int]] = {}
    for event in profiled.profile.events():
        if (event.device_type == torch.autograd.DeviceType.CUDA) == on_device:
            time, count = found.get(event.name, (0.0, 0))
            spent = event.self_device_time_total if on_device else event.self_cpu_time_total
            found[event.name] = time + spent / 1e3 / options.steps, count + 1
    busy, count = sum(time for time, _ in found.values()), sum(n for _, n in found.values()) // options.steps
    print(f"{options.recipe}: {1e3 * pace.seconds:.1f} ms a step; {busy:.1f} ms of it in {count} kernels")
    for name, (time, n) in sorted(found.items(), key=lambda item: -item[1][0])[: options.rows]:
        print(f"{time:8.2f} ms {n // options.steps:6d} x  {name[:110]}")


if __name__ == "__main__":
    main()
