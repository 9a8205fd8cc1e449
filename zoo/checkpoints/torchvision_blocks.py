"""timm's names for the tensors of torchvision's MobileNets and EfficientNets.

torchvision numbers the blocks and the layers of a block; timm sorts blocks into stages and names layers by their task.
Which layers a block has follows from the model: blocks are paired in order, and the layers of a block in order.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from torch import Tensor, nn

from zoo.checkpoints.renaming import Table, renamed

NESTED = r"features\.\d+\.\d+\.(?=block\.)"
"""How the names of a block's tensors begin in an EfficientNet."""
FLAT = r"features\.\d+\.(?=block\.|conv\.)"
"""How they begin in a MobileNet."""


def with_inverted_residuals(tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return tensors under the names of a timm model; those that cannot be paired keep theirs.

    Args:
        tensors: of a MobileNetV2, a MobileNetV3 or an EfficientNet of torchvision.
        model: timm's.
    """
    sources = _source_blocks(tensors)
    targets = [(f"blocks.{i}.{j}", block) for i, stage in enumerate(model.blocks) for j, block in enumerate(stage)]
    names: dict[str, str] = {}
    for source, (name, block) in zip(sources, targets, strict=False):
        names |= dict(zip(source, (f"{name}.{layer}" for layer in _layers(block)), strict=False))
    layers = {name: name.rpartition(".")[0] for name in tensors}
    paired = {names.get(layers[x], layers[x]) + x[len(layers[x]) :]: tensor for x, tensor in tensors.items()}
    # The last convolution before pooling is a block of its own in timm's MobileNetV3.
    is_block = len(targets) == len(sources) + 1
    last = (f"{targets[-1][0]}.conv.", f"{targets[-1][0]}.bn1.") if is_block else ("conv_head.", "bn2.")
    return renamed(paired, _ends(tensors, last))


def _ends(tensors: Iterable[str], last: tuple[str, str]) -> Table:
    """Return the table of what is before and after the blocks."""
    number = max((int(name.split(".")[1]) for name in tensors if re.match(r"features\.\d+\.", name)), default=0)
    return (
        (r"features\.0\.0\.", "conv_stem."),
        (r"features\.0\.1\.", "bn1."),
        (rf"features\.{number}\.0\.", last[0]),
        (rf"features\.{number}\.1\.", last[1]),
        (r"classifier\.0\.", "conv_head."),
        (r"classifier\.[13]\.", "classifier."),
    )


def _source_blocks(tensors: Iterable[str]) -> list[list[str]]:
    """Return the names of the layers of each block, both in order: safetensors files do not keep theirs."""
    where = NESTED if any(re.match(NESTED, name) for name in tensors) else FLAT
    inside = sorted((name for name in tensors if re.match(where, name)), key=_natural)
    blocks = groupby(inside, lambda name: str(re.findall(where, name)[0]))
    return [list(dict.fromkeys(name.rpartition(".")[0] for name in block)) for _, block in blocks]


def _layers(block: nn.Module) -> list[str]:
    """Return the names of a block's layers with parameters, in the order in which they compute."""
    return [name for name, module in block.named_modules() if any(True for _ in module.parameters(recurse=False))]


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in name.split(".")]
