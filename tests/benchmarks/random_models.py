"""Compressed models with random weights, for benchmarks: latency does not depend on the weights."""

from torch import nn

from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.cost import count_macs, count_params
from zoo.export.metadata import Metadata
from zoo.methods import METHODS

MEAN, STD = (0.5,) * 3, (0.25,) * 3
CLASSES = tuple("0123456789")


def compressed(arch: str, compression: float, size: int) -> tuple[nn.Module, Metadata]:
    """Return a deployed model with this share of the parameters gone, in eval mode, and its metadata."""
    shape, method = (3, size, size), METHODS.get("lowrank")(init="random")
    dense = create_backbone(arch, len(CLASSES), shape)
    before = count_params(dense), count_macs(dense, shape)
    ranks = method.plan(dense, Budget(compression=compression))
    model = with_normalization(method.finish(method.convert(dense, ranks)), MEAN, STD).eval()
    counts = count_params(model), count_macs(model, shape), *before
    metadata = Metadata("0", arch, "lowrank", "cifar10", shape, CLASSES, MEAN, STD, *counts, ranks, "random", "", "")
    return model, metadata
