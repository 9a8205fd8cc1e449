"""Two low-rank forms of a convolution at equal parameters: how much of a trained network each keeps, and gets back.

``python tests/benchmarks/conv_forms.py RUN --data-dir DIR [--steps 150]`` takes a finished run of method dense and
replaces every k x k convolution (k > 1) by k x k to r channels then 1 x 1 (the best rank-r matrix n x m k k), or by
Tucker-2 (1 x 1, k x k, 1 x 1; see `zoo.lowrank.tucker`). It prints the accuracy on test images as that leaves it, and
after ``--steps`` of plain SGD on all weights, the same images in the same order for both.
"""

import argparse
import copy
import math
from bisect import bisect_right
from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data import open_data, to_unit
from zoo.data._base import Source
from zoo.lowrank.factorize import Convolution, factorize, fold, in_form, weight_layers
from zoo.publishing.measure import EvaluationSplit
from zoo.runs.run import Run
from zoo.training.schedule import learning_rate_factor

BATCH, NARROWEST = 128, 16


def factorized(dense: nn.Module, form: Convolution, kept: float) -> nn.Module:
    """Return a copy in one of the forms, with at most a share of the weights of its k x k convolutions."""
    ranks = {}
    for layer in in_form(weight_layers(dense), form):
        if layer.obstacle or math.prod(layer.shape[2:]) == 1 or min(layer.shape[:2]) < NARROWEST:
            continue
        sizes = [layer.factorized_size(rank) for rank in range(1, layer.full_rank + 1)]
        ranks[layer.name] = max(1, bisect_right(sizes, kept * layer.n * layer.m))
    return fold(factorize(copy.deepcopy(dense), ranks, convolution=form))


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of uint8 images that are classified rightly."""
    model.eval()
    batches = zip(images.split(250), labels.split(250), strict=True)
    return sum((model(x / 255).argmax(1) == y).sum().item() for x, y in batches) / len(labels)


def tune(model: nn.Module, source: Source, steps: int, lr: float) -> None:
    """Train all weights for a few steps, without augmentation."""
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor("cosine", steps, 0.1))
    order = torch.randperm(len(source.labels), generator=torch.Generator().manual_seed(0))
    for step in range(steps):
        rows = order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_amx_tile_supported()):
            logits = model(to_unit(source.fetch(rows)))
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), source.labels[rows]).backward()
        optimizer.step()
        schedule.step()


def main() -> None:
    """Print a row per share of the weights kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--kept", type=float, nargs="+", default=[0.5, 0.35, 0.2, 0.1])
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.02)
    options = parser.parse_args()
    run = Run(options.run)
    card, dense = run.card, run.model()
    split = EvaluationSplit.of(card, options.data_dir).first(options.n)
    images, labels = split.images, split.labels
    source = open_data(card.data, data_dir=options.data_dir).source(train=True)
    print(f"{card.arch}, {card.data}, n {len(labels)}, dense accuracy {accuracy(dense, images, labels):.1%}")
    for kept in options.kept:
        for form in get_args(Convolution):
            model = factorized(dense, form, kept)
            parameters, found = sum(p.numel() for p in model.parameters()), accuracy(model, images, labels)
            row = f"weights kept {kept:.0%}  {form:6} {parameters:10,} parameters  accuracy {found:.1%}"
            if options.steps:
                tune(model, source, options.steps, options.lr)
                row += f", after {options.steps} steps {accuracy(model, images, labels):.1%}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
