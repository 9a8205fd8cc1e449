"""Rename tensors by a table of patterns."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

Table = tuple[tuple[str, str], ...]
"""Pairs of a regular expression for the start of a name and what takes its place: ``{1}`` stands for its second group,
``{1+1}`` and ``{1-1}`` for the number there, one more or one less, ``{1/2}`` for half of it."""


def family_of(model: nn.Module) -> str:
    """Return timm's name of a model's family: that of the file that defines it."""
    return type(model).__module__.rpartition(".")[2]


def renamed(tensors: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Return tensors under new names, each by the first pattern that its name begins with; the others keep theirs."""
    return {_renamed(name, table): tensor for name, tensor in tensors.items()}


def _renamed(name: str, table: Table) -> str:
    for pattern, new in table:
        if found := re.match(pattern, name):
            return _filled(new, found) + name[found.end() :]
    return name


def _filled(new: str, found: re.Match[str]) -> str:
    def value(place: re.Match[str]) -> str:
        group, operation = found[int(place[1]) + 1], place[2]
        if not operation:
            return group
        number = int(group)
        return str(number // 2 if operation == "/2" else number + int(operation))

    return re.sub(r"\{(\d)([+-]1|/2)?\}", value, new)
