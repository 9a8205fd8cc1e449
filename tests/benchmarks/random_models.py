"""Compressed models with random weights, for benchmarks: latency does not depend on the weights."""

from torch import nn

from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.lowrank.factorize import Convolution
from zoo.methods import METHODS
from zoo.runs.file_metadata import Metadata
from zoo.runtime.complexity import count_macs, count_params

MEAN, STD = (0.5,) * 3, (0.25,) * 3
CLASSES = tuple("0123456789")


def compressed(arch: str, budget: Budget, size: int, convolution: Convolution = "matrix") -> tuple[nn.Module, Metadata]:
    """Return a deployed model of this budget and form, in eval mode, and its metadata."""
    shape, method = (3, size, size), METHODS.get("lowrank")(init="random", convolution=convolution)
    dense = create_backbone(arch, len(CLASSES), shape)
    before = count_params(dense), count_macs(dense, shape)
    ranks = method.plan(dense, budget)
    model = with_normalization(method.deploy(method.convert(dense, ranks)), MEAN, STD).eval()
    counts = count_params(model), count_macs(model, shape), *before
    metadata = Metadata("0", arch, "lowrank", "cifar10", shape, CLASSES, MEAN, STD, *counts, ranks, "random", "", "")
    return model, metadata
