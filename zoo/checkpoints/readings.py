"""Every way to read the tensors of a checkpoint as those of a model, and the one under which most of them fit."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import prod
from typing import Any

from torch import Tensor, nn

from zoo.backbone import ends
from zoo.checkpoints.huggingface_names import from_huggingface
from zoo.checkpoints.torchvision_names import from_torchvision

SHARE = 0.3
"""Of the tensors that a prefix must have before they are read without it."""
INSERTED = re.compile(r"(?:^|(?<=\.))_orig_mod\.")
"""What `torch.compile` puts into names, anywhere."""
UNLEARNED = "num_batches_tracked"
"""What checkpoints of early PyTorch lack, and no output depends on."""

Naming = Callable[[Mapping[str, Tensor], nn.Module], dict[str, Tensor]]


def _from_timm(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return dict(tensors)


NAMINGS: dict[str, Naming] = {"timm": _from_timm, "torchvision": from_torchvision, "Hugging Face": from_huggingface}


@dataclass(frozen=True)
class Reading:
    """Tensors under the names of a model, as far as they can be.

    Attributes:
        model: what they are meant for.
        tensors: by name; one whose entries are those of the model's in another shape (a linear layer for a 1 x 1
            convolution) has the model's.
        prefix: what was taken from the names.
        naming: whose names they were.
        resized: what timm resized to the model's images.
    """

    model: nn.Module
    tensors: dict[str, Tensor]
    prefix: str
    naming: str
    resized: tuple[str, ...] = ()

    @cached_property
    def own(self) -> dict[str, Tensor]:
        """The model's tensors, by name."""
        return dict(self.model.state_dict())

    @cached_property
    def missing(self) -> list[str]:
        """Names that only the model has."""
        return [name for name in self.own if name not in self.tensors and not name.endswith(UNLEARNED)]

    @cached_property
    def unexpected(self) -> list[str]:
        """Names that only the checkpoint has; buffers that a model computes itself do not count."""
        computed = {name for name, _ in self.model.named_buffers()}
        return [x for x in self.tensors if x not in self.own and x not in computed and not x.endswith(UNLEARNED)]

    @cached_property
    def reshaped(self) -> list[str]:
        """Names that both have, with tensors of different shapes."""
        return [x for x, tensor in self.tensors.items() if x in self.own and tensor.shape != self.own[x].shape]

    @property
    def fit(self) -> tuple[int, int]:
        """How well it fits, for comparison: tensors of the model that it fills, then how few are left over."""
        return len(self.own.keys() & self.tensors.keys()) - len(self.reshaped), -len(self.unexpected)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, left over or of another shape."""
        return not (self.missing or self.unexpected or self.reshaped)


def best_reading(tensors: Mapping[str, Tensor], model: nn.Module) -> Reading:
    """Return the reading of a checkpoint's tensors under which most of them fit a model.

    Args:
        tensors: by their names in the file.
        model: from timm; it may be on the meta device, and the tensors too.
    """
    found = [
        Reading(model, _in_shape(rename(inner, model), model), prefix, naming)
        for prefix, inner in _without_prefixes({INSERTED.sub("", name): x for name, x in tensors.items()})
        for naming, rename in NAMINGS.items()
    ]
    best = max(found, key=lambda reading: reading.fit)
    if best.is_complete:
        return best
    return max([best, *_resized(found)], key=lambda reading: reading.fit)


def head_names(model: nn.Module) -> set[str]:
    """Return the names of the tensors of a model's classifiers."""
    _, last = ends(model)
    return {name for name in model.state_dict() if name.rpartition(".")[0] in last}


def _without_prefixes(tensors: Mapping[str, Tensor], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield the tensors as they are, and without each prefix that many share, at any depth; averaged weights first."""
    yield prefix, tensors
    shared = Counter(name.partition(".")[0] for name in tensors if "." in name)
    for first in sorted(shared, key=lambda name: ("ema" not in name, name)):
        if shared[first] >= SHARE * len(tensors):
            inner = {x.removeprefix(f"{first}."): t for x, t in tensors.items() if x.startswith(f"{first}.")}
            yield from _without_prefixes(inner, f"{prefix}{first}.")


def _in_shape(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give each tensor the model's shape where only its dimensions are grouped in another way."""
    own = model.state_dict()

    def like(name: str, tensor: Tensor) -> Tensor:
        wanted = own[name].shape if name in own else tensor.shape
        same = tensor.ndim and len(wanted) and tensor.shape[0] == wanted[0] and tensor.numel() == prod(wanted)
        return tensor.reshape(wanted) if same and tensor.ndim != len(wanted) else tensor

    return {name: like(name, tensor) for name, tensor in tensors.items()}


def _resized(readings: list[Reading]) -> Iterator[Reading]:
    """Yield the readings as timm adapts them: earlier names of its own, and embeddings of positions resized."""
    adapt: Any = getattr(import_module(type(readings[0].model).__module__), "checkpoint_filter_fn", None)
    for reading in readings if adapt is not None else ():
        try:
            adapted = _in_shape(adapt(dict(reading.tensors), reading.model), reading.model)
        except Exception:  # written for checkpoints of one source: it may fail in any way on those of others
            continue
        before = reading.tensors
        resized = tuple(x for x, t in adapted.items() if x in before and t.shape != before[x].shape)
        yield Reading(reading.model, adapted, reading.prefix, reading.naming, resized)
