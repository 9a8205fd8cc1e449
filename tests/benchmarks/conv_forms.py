"""Two low-rank forms of a convolution at equal parameters: how much of a trained network each keeps, and gets back.

``python tests/benchmarks/conv_forms.py RUN --data-dir DIR [--steps 150]`` takes a finished run of method dense and
replaces every k x k convolution (k > 1) by k x k to r channels then 1 x 1 (zoo's form: the best rank-r matrix
n x m k k), or by Tucker-2 (1 x 1, k x k, 1 x 1, both ranks in the ratio of the channels, fitted by higher-order
orthogonal iteration). It prints the accuracy on test images as that leaves it, and after ``--steps`` of plain SGD on
all weights, the same images in the same order for both.
"""

import argparse
import copy
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data import load_test, open_data
from zoo.data._base import Source
from zoo.run import Run
from zoo.training.module import to_unit
from zoo.training.schedule import learning_rate_factor

SWEEPS, BATCH, NARROWEST = 5, 128, 16


def matrix_form(weight: Tensor, budget: float) -> list[Tensor]:
    """Return the kernels of the best k x k then 1 x 1 form of at most so many parameters."""
    matrix = weight.flatten(1)
    rank = max(1, int(budget / sum(matrix.shape)))
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    return [(root[:, None] * vt[:rank]).view(rank, *weight.shape[1:]), (u[:, :rank] * root)[..., None, None]]


def tucker_form(weight: Tensor, budget: float) -> list[Tensor]:
    """Return the kernels of a Tucker-2 form of at most so many parameters: W = core x_1 A x_2 B."""
    n, m, *kernel = weight.shape
    outer, inner = tucker_ranks(n, m, math.prod(kernel), budget)
    b = _leading(weight.transpose(0, 1).flatten(1), inner)
    for _ in range(SWEEPS):
        a = _leading(torch.einsum("nmhw,mi->nihw", weight, b).flatten(1), outer)
        b = _leading(torch.einsum("nmhw,no->ohwm", weight, a).flatten(0, 2).T, inner)
    return [b.T[..., None, None], torch.einsum("nmhw,no,mi->oihw", weight, a, b), a[..., None, None]]


def tucker_ranks(n: int, m: int, area: int, budget: float) -> tuple[int, int]:
    """Return the largest ranks share * (n, m) with n o + area o i + m i parameters within the budget."""
    low, high = 0.0, 1.0
    for _ in range(40):
        share = (low + high) / 2
        o, i = share * n, share * m
        low, high = (share, high) if n * o + area * o * i + m * i <= budget else (low, share)
    return max(1, int(low * n)), max(1, int(low * m))


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """Return the leading left singular vectors."""
    return torch.linalg.eigh(matrix @ matrix.T)[1][:, -rank:]


FORMS = {"k x k, 1 x 1": matrix_form, "Tucker-2": tucker_form}


def chain(layer: nn.Conv2d, kernels: list[Tensor]) -> nn.Sequential:
    """Return convolutions with these kernels: the k x k one has the stride and padding, the last one the bias."""
    layers = []
    for kernel in kernels:
        n, m, *size = kernel.shape
        wide = size != [1, 1]
        conv = nn.Conv2d(m, n, tuple(size), layer.stride if wide else 1, layer.padding if wide else 0, bias=False)
        conv.weight.data = kernel.contiguous()
        layers.append(conv)
    layers[-1].bias = layer.bias
    return nn.Sequential(*layers)


def factorized(dense: nn.Module, form: str, kept: float) -> nn.Module:
    """Return a copy in one of the forms, with a share of the weights of its k x k convolutions."""
    model = copy.deepcopy(dense)
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, nn.Conv2d) or layer.groups > 1 or layer.kernel_size == (1, 1):
                continue
            if min(layer.weight.shape[:2]) >= NARROWEST:
                weight = layer.weight.data
                setattr(parent, name, chain(layer, FORMS[form](weight, kept * weight.numel())))
    return model


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
    where = {"data_dir": options.data_dir, "download": False}
    images, labels = load_test(card.data, **where, image_shape=card.image_shape, n=options.n)
    source = open_data(card.data, **where).source(train=True)
    print(f"{card.arch}, {card.data}, n {len(labels)}, dense accuracy {accuracy(dense, images, labels):.1%}")
    for kept in options.kept:
        for form in FORMS:
            model = factorized(dense, form, kept)
            parameters, found = sum(p.numel() for p in model.parameters()), accuracy(model, images, labels)
            row = f"weights kept {kept:.0%}  {form:14} {parameters:10,} parameters  accuracy {found:.1%}"
            if options.steps:
                tune(model, source, options.steps, options.lr)
                row += f", after {options.steps} steps {accuracy(model, images, labels):.1%}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
