"""Accuracies of merged weights on validation images, clean and attacked."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from zoo.attacks.pgd import PGD
from zoo.data import DataSet, training_rows
from zoo.errors import UserError
from zoo.merging.rules import Accuracies, State
from zoo.nested.recalibrate import val_fraction
from zoo.runs.run import Run
from zoo.runtime.batch_norm import reestimate_batch_norm_
from zoo.sensitivity.held_out import HeldOut

IMAGES = 1024
"""Training images on which BatchNorm's statistics are estimated, and which rules get without labels."""
BATCH = 64
DEFAULT_EPS = 8 / 255


class Judge:
    """Measures states of one network.

    Args:
        runs: of which the first gives the split, and whose largest radius is that of the attack.
        data: of the runs.
        n: validation images, at most.
        device: where to compute.

    Raises:
        UserError: the first run's training kept no images for validation.
    """

    def __init__(self, runs: list[Run], data: DataSet, n: int, device: torch.device) -> None:
        models = [run.card.threat_model for run in runs]
        self.eps = max((x.eps for x in models if x is not None and x.norm == "Linf"), default=DEFAULT_EPS)
        self.source, self.device = data.source(train=True), device
        fraction = val_fraction(runs[0])
        _, held_out = data.train_val(self.source.labels, fraction)
        if not len(held_out):
            raise UserError(f"{runs[0].name} was trained without validation images, on which merges are decided")
        self.n = min(n, len(held_out))
        self._held_out = HeldOut(lambda: self.source, held_out, self.eps)
        rows = training_rows(data, self.source.labels, IMAGES, fraction, seed=0)
        self._rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]

    def images(self) -> Iterator[Tensor]:
        """Yield batches of training images in [0, 1], none of them for validation."""
        for part in self._rows.split(BATCH):
            if len(part) > 1:
                yield self.source.fetch(part).to(self.device).float().div(255)

    def measure(self, model: nn.Module) -> Accuracies:
        """Estimate the statistics of a network anew, in place, and return its accuracies."""
        model = model.to(self.device)
        reestimate_batch_norm_(model, self.images())
        context = self._held_out.context(model, self.n)
        attack = PGD(steps=10, random_start=False)
        found = attack(model, context.images, context.labels, [self.eps], batch_size=context.batch_size)
        clean = context.correct(context.images)
        return Accuracies(clean.float().mean().item(), found.robust[0].float().mean().item())

    def barrier(self, one: State, other: State, network: Callable[[State], nn.Module]) -> list[Accuracies]:
        """Return the accuracies of two states, and of the state halfway between them, the latter in the middle."""
        halfway = {name: one[name] if one[name].dtype == torch.long else (one[name] + other[name]) / 2 for name in one}
        return [self.measure(network(state)) for state in (one, halfway, other)]
