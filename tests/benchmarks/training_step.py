"""Time a training step of each method against the dense one, interleaved in one process.

Usage: python tests/benchmarks/training_step.py [--archs vgg16_bn,resnet18] [--methods lowrank,robust_lowrank]
       [--rounds 9] [--precision bf16|fp32]

Prints ratios to the dense step, and the share of the step that retraction and clamp take. fp32 runs each network in
the memory format that is faster for it, so that dense is not slowed by channels_last.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch

from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.callbacks import OrthonormalRetraction
from zoo.callbacks._step_hook import StepHook
from zoo.methods import METHODS
from zoo.runs.provenance import hardware

IMAGE = (3, 32, 32)
BATCH = 128


class Trainee:
    """One network with its optimizer, whose steps can be timed."""

    def __init__(self, arch: str, name: str, bf16: bool, channels_last: bool) -> None:
        method = METHODS.get(name)()
        torch.manual_seed(0)
        model = create_backbone(arch, 10, IMAGE)
        ranks = method.plan(model, None if name == "dense" else Budget(compression=0.8))
        self.model = with_normalization(method.convert(model, ranks), (0.5,) * 3, (0.25,) * 3)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.format)
        self.method, self.bf16 = method, bf16
        self.optimizer = torch.optim.SGD(method.parameter_groups(self.model, 5e-4), lr=0.01, momentum=0.9)
        self.hooks = [c for c in method.callbacks(None) if isinstance(c, StepHook)]
        self.spent = 0.0
        for hook in self.hooks:
            hook.project_ = self._timed(hook.project_)  # type: ignore[method-assign]
            hook.on_fit_start(SimpleNamespace(optimizers=[self.optimizer]), self.model)  # type: ignore[arg-type]

    def _timed(self, function: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: object) -> None:
            start = time.perf_counter()
            function(*args)
            self.spent += time.perf_counter() - start

        return timed

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        """Take one step; return its seconds and the share of retraction and clamp."""
        images = images.contiguous(memory_format=self.format)
        self.spent = 0.0
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.method.loss(self.model, images, labels)["loss"]
        loss.backward()
        for hook in self.hooks:
            if isinstance(hook, OrthonormalRetraction):
                trainer = SimpleNamespace(gradient_clip_val=None)
                hook.on_before_optimizer_step(trainer, self.model, self.optimizer)  # type: ignore[arg-type]
        self.optimizer.step()
        seconds = time.perf_counter() - start
        return seconds, self.spent / seconds


def compare(arch: str, methods: list[str], bf16: bool, rounds: int) -> None:
    """Print the ratios for one architecture."""
    formats = [True] if bf16 else [True, False]
    trainees = {(m, f): Trainee(arch, m, bf16, f) for m in methods for f in formats}
    images, labels = torch.rand(BATCH, *IMAGE), torch.randint(0, 10, (BATCH,))
    times: dict[tuple[str, bool], list[tuple[float, float]]] = {key: [] for key in trainees}
    for i in range(rounds + 2):
        for key, trainee in trainees.items():
            measured = trainee.step(images, labels)
            if i >= 2:
                times[key].append(measured)
    median = {key: statistics.median(t for t, _ in values) for key, values in times.items()}
    best = {m: min((median[m, f], f) for f in formats) for m in methods}
    for name, (seconds, form) in best.items():
        share = statistics.median(s for _, s in times[name, form])
        ratio = seconds / best["dense"][0]
        print(f"{arch:10} {name:15} {seconds * 1e3:7.0f} ms  {ratio:5.2f} of dense  retraction and clamp {share:.1%}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", default="vgg16_bn,resnet18")
    parser.add_argument("--methods", default="lowrank,robust_lowrank")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    options = parser.parse_args()
    print(f"batch {BATCH}, 32 x 32, {options.precision}, {hardware(torch.device('cpu'))}, torch {torch.__version__}")
    for arch in options.archs.split(","):
        compare(arch, ["dense", *options.methods.split(",")], options.precision == "bf16", options.rounds)


if __name__ == "__main__":
    main()
