"""The contract of a merging rule, and what it works on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""The tensors of a dense network, by name."""


class Accuracies(NamedTuple):
    """Shares of the validation images that are classified correctly, clean and under PGD at the runs' radius."""

    clean: float
    robust: float


@dataclass(frozen=True)
class Candidates:
    """Networks of one start, with everything that a rule may use.

    Attributes:
        start: that they began as, without a classifier for other classes; empty for a rule that does not need it.
        runs: at least two, each with its factors multiplied out.
        names: of the runs.
        matrices: names of the start's weights of linear and convolution layers.
        network: in which `State`s are computed; takes images in [0, 1].
        measure: gives the accuracies of a state on validation images, at the final ranks, with its BatchNorms estimated
            anew.
        images: batches of training images in [0, 1], without labels, anew at each call.
    """

    start: State
    runs: Sequence[State]
    names: Sequence[str]
    matrices: frozenset[str]
    network: nn.Module
    measure: Callable[[State], Accuracies]
    images: Callable[[], Iterator[Tensor]]


@dataclass(frozen=True)
class Merged:
    """What a rule made of the candidates.

    Attributes:
        state: the merged network.
        outcome: what was decided, for the card.
    """

    state: State
    outcome: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MergeRule(ABC):
    """A way to combine the weights of networks that began as one.

    A subclass is a frozen dataclass in a file of its own, whose name is the rule's; its fields are its options. Most
    rules combine each weight matrix by itself (a kernel as a matrix n x (c kh kw)) and average everything else.
    """

    needs_start: ClassVar[bool] = True
    """Whether the network that the runs began as takes part."""

    @abstractmethod
    def matrix(self, start: Tensor, runs: Tensor) -> Tensor:
        """Combine one weight matrix.

        Args:
            start: (n, m).
            runs: (T, n, m), of the T runs.
        """

    def merge(self, candidates: Candidates) -> Merged:
        """Merge the candidates."""
        state = mean(candidates.runs)
        for name in candidates.matrices:
            shape = state[name].shape
            runs = torch.stack([run[name].flatten(1) for run in candidates.runs])
            state[name] = self.matrix(candidates.start[name].flatten(1), runs).view(shape)
        return Merged(state)


def mean(states: Sequence[State], shares: Sequence[float] | None = None) -> State:
    """Return the average of states, weighted by shares that sum to 1; whole numbers are those of the first."""
    shares = [1 / len(states)] * len(states) if shares is None else shares
    first = states[0]

    def averaged(name: str) -> Tensor:
        if not first[name].is_floating_point():
            return first[name].clone()
        weighted = [share * state[name].double() for share, state in zip(shares, states, strict=True)]
        return torch.stack(weighted).sum(0).to(first[name])

    return {name: averaged(name) for name in first}
