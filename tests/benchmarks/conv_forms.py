"""Two low-rank forms of a convolution at equal parameters: how much of a trained network each of them keeps.

``python tests/benchmarks/conv_forms.py RUN --data-dir DIR`` takes a finished run of method dense and replaces every
k x k convolution (k > 1) by k x k to r channels then 1 x 1 (zoo's form: the best rank-r matrix n x m k k), or by
Tucker-2 (1 x 1, k x k, 1 x 1, both ranks in the ratio of the channels, fitted by higher-order orthogonal iteration). It
prints the mean relative Frobenius error and the accuracy on test images without any fine-tuning.
"""

import argparse
import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.data import load_test
from zoo.run import Run

SWEEPS = 5


def matrix_form(weight: Tensor, budget: float) -> Tensor:
    """Return the best k x k then 1 x 1 form of at most so many parameters."""
    matrix = weight.flatten(1)
    rank = max(1, int(budget / sum(matrix.shape)))
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ vt[:rank]).view_as(weight)


def tucker_form(weight: Tensor, budget: float) -> Tensor:
    """Return a Tucker-2 form of at most so many parameters: W = core x_1 A x_2 B."""
    n, m, *kernel = weight.shape
    outer, inner = tucker_ranks(n, m, math.prod(kernel), budget)
    b = _leading(weight.transpose(0, 1).flatten(1), inner)
    for _ in range(SWEEPS):
        a = _leading(torch.einsum("nmhw,mi->nihw", weight, b).flatten(1), outer)
        b = _leading(torch.einsum("nmhw,no->ohwm", weight, a).flatten(0, 2).T, inner)
    return torch.einsum("nmhw,no,mi,po,qi->pqhw", weight, a, b, a, b)


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


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of uint8 images that are classified rightly."""
    batches = zip(images.split(250), labels.split(250), strict=True)
    return sum((model(x / 255).argmax(1) == y).sum().item() for x, y in batches) / len(labels)


@torch.no_grad()
def main() -> None:
    """Print a row per share of the weights kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--kept", type=float, nargs="+", default=[0.5, 0.35, 0.2, 0.1])
    options = parser.parse_args()
    run = Run(options.run)
    card, dense = run.card, run.model()
    images, labels = load_test(
        card.data, data_dir=options.data_dir, download=False, image_shape=card.image_shape, n=options.n
    )
    print(f"{card.arch}, {card.data}, n {len(labels)}, dense accuracy {accuracy(dense, images, labels):.1%}")
    for kept in options.kept:
        for name, form in FORMS.items():
            model, errors = copy.deepcopy(dense), []
            for layer in model.modules():
                if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.kernel_size != (1, 1):
                    if min(layer.weight.shape[:2]) < 16:
                        continue
                    weight = layer.weight.data
                    approximation = form(weight, kept * weight.numel())
                    errors.append((torch.dist(weight, approximation) / weight.norm()).item())
                    layer.weight.data = approximation.contiguous()
            found = accuracy(model, images, labels)
            print(f"weights kept {kept:.0%}  {name:14} error {sum(errors) / len(errors):.3f}  accuracy {found:.1%}")


if __name__ == "__main__":
    main()
