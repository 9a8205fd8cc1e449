"""The contract of a constraint, and layers in batches."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from zoo.linalg.stiefel import full_precision
from zoo.lowrank.layers import Factorized, factorized_layers
from zoo.runtime.cuda_graph import called

Layers = nn.Module | Iterable[Factorized]
"""A factorized layer, a model that holds some, or several layers."""


class Constraint(ABC):
    """A set of factorized layers W = U S V^T, and how a training stays in it.

    Call `project_` before the first step. Then, in each step, call `gradient_flow_` between ``loss.backward()`` and
    ``optimizer.step()``, and `project_` after the latter.
    """

    @abstractmethod
    def in_set(self, layers: Layers) -> bool:
        """Return whether all layers satisfy the constraint, frozen ones too, up to the tolerance of the class."""

    @abstractmethod
    def project_(self, layers: Layers) -> None:
        """Move the layers into the set, in place. Frozen layers do not change.

        Raises:
            torch.linalg.LinAlgError: a factor has infinite or undefined entries.
        """

    @abstractmethod
    def project_if_outside_(self, layers: Layers) -> None:
        """Move the layers into the set, in place, but leave a batch of layers that lies in it bit for bit as it is."""

    def gradient_flow_(  # noqa: B027
        self, layers: Layers, optimizer: Optimizer | None = None, *, clipped: bool = False
    ) -> None:
        """Turn the gradients of the factors into the directions in which they should move; by default, leave them.

        Args:
            layers: those without a gradient stay as they are.
            optimizer: that steps next, for its parameter groups and momenta; None: one without momentum.
            clipped: whether gradients are clipped between this call and the step.
        """


class BatchedConstraint(Constraint):
    """A constraint on each layer by itself, whose algebra goes in batches of layers.

    Args:
        run: calls what does not wait for the device (see `zoo.runtime.cuda_graph.Replays`).
    """

    def __init__(self, run: Callable[..., Any] = called) -> None:
        self.run = run

    def in_set(self, layers: Layers) -> bool:
        """Return whether all layers satisfy the constraint, frozen ones too, up to the tolerance of the class."""
        return self._hold_all(several(layers))

    def project_(self, layers: Layers) -> None:
        """Move the layers into the set, in place. Frozen layers do not change.

        Raises:
            torch.linalg.LinAlgError: a factor has infinite or undefined entries.
        """
        self._project_batches(batches(filter(self._trains, several(layers))))

    def project_if_outside_(self, layers: Layers) -> None:
        """Move the layers into the set, in place, but leave a batch of layers that lies in it bit for bit as it is."""
        found = batches(filter(self._trains, several(layers)))
        self._project_batches(batch for batch in found if not self._hold_all(batch))

    def _hold_all(self, layers: Iterable[Factorized]) -> bool:
        with torch.no_grad():
            return all(self._holds(layer) for layer in layers)

    def _project_batches(self, found: Iterable[list[Factorized]]) -> None:
        for batch in found:
            with full_precision(batch[0].S.device):
                self._project(batch)

    @abstractmethod
    def _trains(self, layer: Factorized) -> bool:
        """Return whether what is constrained of a layer takes gradients."""

    @abstractmethod
    def _holds(self, layer: Factorized) -> bool:
        """Return whether one layer satisfies the constraint."""

    @abstractmethod
    def _project(self, layers: list[Factorized]) -> None:
        """Move a batch of layers into the set."""


def several(layers: Layers) -> Iterable[Factorized]:
    """Return the factorized layers themselves."""
    return [layer for _, layer in factorized_layers(layers)] if isinstance(layers, nn.Module) else layers


def batches(layers: Iterable[Factorized]) -> list[list[Factorized]]:
    """Group layers whose algebra goes as one batch: those with cores of one shape, on a GPU all matrices (`padded`)."""
    groups: dict[tuple[torch.device, tuple[int, ...]], list[Factorized]] = {}
    for layer in layers:
        core = layer.S
        pads = core.ndim == 2 and core.device.type != "cpu"
        groups.setdefault((core.device, () if pads else tuple(core.shape)), []).append(layer)
    return list(groups.values())
