"""Time training steps of one-step adversaries on the 90 % low-rank ResNet-18, eager and compiled, in one process.

Usage: python tests/benchmarks/one_step.py [--precision bf16|fp32] [--rounds 9] [--threads N]

Every step is a search, a training pass and an optimizer step; the constraints of the factors are left out, because they
cost the same everywhere. Steps are taken in turns, and the ratios are those of the medians to the eager fgsm_rs step.
"""

import argparse
import statistics
import time
from typing import cast

import torch
from torch import nn

from zoo.adversaries import ADVERSARIES, Threat
from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.lowrank.applied_once import applied_once
from zoo.methods import METHODS
from zoo.runs.provenance import hardware

IMAGE, BATCH = (3, 32, 32), 128


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="fp32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    method = METHODS.get("robust_lowrank")(tau=1.0, convolution="tucker")
    backbone = create_backbone("resnet18", 10, IMAGE)
    ranks = method.plan(backbone, Budget(compression=0.9, macs_reduction=0.9))
    model = with_normalization(method.convert(backbone, ranks), (0.5,) * 3, (0.25,) * 3)
    model = model.to(memory_format=torch.channels_last).train()
    compiled = cast(nn.Module, torch.compile(model, dynamic=False))
    optimizer = torch.optim.SGD(method.parameter_groups(model, 5e-4), lr=1e-3, momentum=0.9)
    images = torch.rand(BATCH, *IMAGE).contiguous(memory_format=torch.channels_last)
    labels, threat = torch.randint(0, 10, (BATCH,)), Threat(8 / 255, 1)
    ways = {
        f"{name}, {how}": (ADVERSARIES.get(name)(), network)
        for name in ("fgsm_rs", "n_fgsm")
        for how, network in (("eager", model), ("compiled", compiled))
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(options.rounds + 2):
        for name, (adversary, network) in ways.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
                adversarial = adversary.search(network, images, labels, threat)
                with applied_once(model):
                    loss = adversary.loss(network, images, adversarial, labels, threat)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if i > 1:  # the first two compile
                times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in times.items()}
    first = median["fgsm_rs, eager"]
    where = f"{torch.get_num_threads()} threads, {hardware(torch.device('cpu'))}, torch {torch.__version__}"
    print(f"batch {BATCH}, {options.precision}, {where}")
    for name, seconds in median.items():
        print(f"{name}: {seconds:.3f} s, {seconds / first:.2f}")


if __name__ == "__main__":
    main()
