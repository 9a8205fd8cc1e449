"""AdaRank: Lee et al., AdaRank: adaptive rank pruning for enhanced model merging, 2025, arXiv 2503.22178."""

from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor
from torch.func import functional_call

from zoo.errors import UserError
from zoo.merging.rules._base import Candidates, Merged, MergeRule, State, mean
from zoo.runtime.batch_norm import batch_norms

TEMPERATURE = 10.0
START = 0.1
"""Gates start open: at the logit 0.1."""


def gated(s: Tensor, logits: Tensor) -> Tensor:
    """Return singular values of which those with a negative logit are 0, with the gradient of a soft gate.

    The value is 1[m > 1/2] s with m = sigmoid(l / T); the gradients are those of m s.

    Args:
        s, logits: the same shape.
    """
    m = torch.sigmoid(logits / TEMPERATURE)
    soft = m * s
    return soft + ((m > 0.5) * s - soft).detach()


@dataclass(frozen=True)
class Adarank(MergeRule):
    """Each run's change without the components that make the merged network unsure, found on unlabelled images.

    A gate on every singular component of every change is learned by the entropy of the merged network's answers on
    training images, without their labels.
    """

    scale: float = 0.3
    """Factor of each change."""
    steps: int = 100
    """Steps of Adam."""
    lr: float = 1e-2
    """Learning rate of the gates, which start at 0.1 and close below 0."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0:
            raise UserError("adarank needs at least one step and lr > 0")

    def matrix(self, start: Tensor, runs: Tensor) -> Tensor:
        """Return the start plus the whole changes: what the gates begin with."""
        return start + self.scale * (runs - start).sum(0)

    def merge(self, candidates: Candidates) -> Merged:
        """Learn the gates, and merge."""
        network = candidates.network
        fixed = mean(candidates.runs)
        parts = {}
        for name in candidates.matrices:
            change = torch.stack([run[name].flatten(1) for run in candidates.runs]) - candidates.start[name].flatten(1)
            parts[name] = torch.linalg.svd(change, full_matrices=False)
        gates = {name: torch.full_like(s, START).requires_grad_() for name, (_, s, _) in parts.items()}

        def state() -> State:
            merged = dict(fixed)
            for name, (u, s, vh) in parts.items():
                change = (u * gated(s, gates[name])[:, None] @ vh).sum(0)
                merged[name] = candidates.start[name] + self.scale * change.view_as(fixed[name])
            return merged

        optimizer, entropies = torch.optim.Adam(gates.values(), self.lr), list[float]()
        norms = batch_norms(network)
        for norm in norms:  # the statistics of each batch: those of the runs are not the merged network's
            norm.training = True
        try:
            for images in islice(cycle(candidates.images()), self.steps):
                state_now = {f"backbone.{name}": value.clone() for name, value in state().items()}
                logits = functional_call(network, state_now, images)
                entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
                optimizer.zero_grad()
                entropy.backward()
                optimizer.step()
                entropies.append(entropy.item())
        finally:
            for norm in norms:
                norm.training = False
        with torch.no_grad():
            merged = state()
        open_gates = sum(int((x > 0).sum()) for x in gates.values())
        outcome = {
            "open": open_gates,
            "of": sum(x.numel() for x in gates.values()),
            "entropy": [entropies[0], entropies[-1]],
        }
        return Merged(merged, outcome)
