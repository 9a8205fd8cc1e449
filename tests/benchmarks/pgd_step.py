"""Time a training step of PGD adversarial training against the plain loop with loss.backward(), in one process.

Usage: python tests/benchmarks/pgd_step.py [--arch resnet18] [--method robust_lowrank] [--steps 10] [--rounds 5]
       [--compile]

With --compile, the same step on the compiled network (`zoo train --compile true`) is timed beside the two.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries import ADVERSARIES, Threat
from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.methods import METHODS
from zoo.runs.provenance import hardware

IMAGE, BATCH = (3, 32, 32), 128


def plain_search(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
    """PGD as it is often written: the backward pass computes the weights' gradients too, and throws them away."""
    x = (images + threat.eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(threat.steps):
        x = x.detach().requires_grad_()
        F.cross_entropy(model(x), labels).backward()
        assert x.grad is not None
        x = x + 2.5 * threat.eps / threat.steps * x.grad.sign()
        x = torch.min(torch.max(x, images - threat.eps), images + threat.eps).clamp(0, 1)
    model.zero_grad()
    return x.detach()


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--method", default="robust_lowrank")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method, adversary = METHODS.get(options.method)(), ADVERSARIES.get("pgd")()
    backbone = create_backbone(options.arch, 10, IMAGE)
    ranks = method.plan(backbone, None if options.method == "dense" else Budget(compression=0.75))
    model = with_normalization(method.convert(backbone, ranks), (0.5,) * 3, (0.25,) * 3)
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(method.parameter_groups(model, 5e-4), lr=1e-3, momentum=0.9)
    images = torch.rand(BATCH, *IMAGE, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,), device=device)
    threat = Threat(8 / 255, options.steps)

    def step(search: Callable[[nn.Module, Tensor, Tensor, Threat], Tensor], network: nn.Module) -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            adversarial = search(network, images, labels, threat)
            loss = adversary.loss(network, images, adversarial, labels, threat)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    ways = {"plain loop": (plain_search, model), "zoo": (adversary.search, model)}
    if options.compile:
        ways["zoo, compiled"] = (adversary.search, cast(nn.Module, torch.compile(model, dynamic=False)))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(options.rounds + 1):
        for name, way in ways.items():
            seconds = step(*way)
            if i:
                times[name].append(seconds)
    median = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{options.arch} {options.method}, PGD-{options.steps}, batch {BATCH}, {options.precision}, {hardware(device)}"
    )
    for name, seconds in median.items():
        print(f"{name}: {seconds:.2f} s, {seconds / median['plain loop']:.2f} of the plain loop's time")


if __name__ == "__main__":
    main()
