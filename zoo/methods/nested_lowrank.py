"""One training, every rank: low-rank networks nested in one another.

Sandwich rule, distillation in place and statistics per size: Yu, Huang: Universally slimmable networks and improved
training techniques, ICCV 2019, arXiv 1903.05134; for widths, without an adversary. Components ordered by training
prefixes: Rippel, Gelbart, Adams: Learning ordered representations with nested dropout, ICML 2014, arXiv 1402.0915. The
constraints are CondLR's, see `zoo.methods.robust_lowrank`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.budget import Budget
from zoo.errors import UserError
from zoo.lowrank.factorize import Ranks, in_form, weight_layers
from zoo.lowrank.sizes import NAME, Sizes, grid, size_applied, sizes_of, start_statistics_
from zoo.methods._base import Objective, cross_entropy
from zoo.methods._constrained import ConstrainedMethod
from zoo.runtime.batch_norm import reestimate_batch_norm_, running_statistics
from zoo.runtime.complexity import count_params
from zoo.runtime.eval_mode import evaluating
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

DEFAULT_BUDGET = Budget(compression=0.5)


@dataclass(frozen=True)
class NestedLowrank(ConstrainedMethod):
    """One training for every compression: the leading components of each layer are smaller networks of their own.

    The compression is that of the largest network. Each step trains it, the smallest, and others drawn between them.
    The smaller ones learn from the clean answers of the largest, at the same adversarial images, which are searched on
    one of the step's networks. U, V and S of every prefix satisfy the constraints of robust_lowrank, see
    `zoo.constraints.OrderedSpectrum`. Each size has its own BatchNorm statistics.
    """

    trains_several: ClassVar[bool] = True

    smallest: float = 0.95
    """Compression of the smallest network; if rank 1 everywhere is larger, the largest possible multiple of step."""
    step: float = 0.05
    """Trained sizes lie at multiples of this compression, between the largest and the smallest network."""
    between: int = 1
    """Networks between the largest and the smallest that each step trains."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.smallest < 1:
            raise UserError(f"smallest {self.smallest} is invalid: give a share to remove, between 0 and 1")
        if not 0.01 <= self.step < 1:
            raise UserError(f"step {self.step} is invalid: give the distance of two compressions, from 0.01 up")
        if self.between < 0:
            raise UserError(f"between {self.between} is invalid: give a number of networks")

    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Choose the ranks of the largest network (default: 50 % of the parameters removed).

        Raises:
            UserError: the budget cannot be met, or no smaller network is nested in it.
        """
        ranks = self.ranks_for(model, budget or DEFAULT_BUDGET)
        self.sizes(model, ranks)
        return ranks

    def sizes(self, dense: nn.Module, ranks: Ranks) -> dict[float, Ranks]:
        """Return the ranks of the trained sizes below the largest network, by compression.

        Raises:
            UserError: there is none.
        """
        layers = [x for x in in_form(weight_layers(dense), self.convolution) if x.name in ranks]
        return grid(layers, count_params(dense), ranks, self.smallest, self.step)

    def convert(self, model: nn.Module, ranks: Ranks) -> nn.Module:
        """Replace each layer that has a rank by its factorization, and attach the sizes."""
        found, channels = self.sizes(model, ranks), len(running_statistics(model)[0])
        model = super().convert(model, ranks)
        setattr(model, NAME, Sizes([*found], [*found.values()], channels))
        start_statistics_(model)
        return model

    @contextmanager
    def searched_on(self, model: nn.Module) -> Iterator[None]:
        """Draw the networks of the next step; inside, the model is one of them."""
        sizes = sizes_of(model)[1]
        sizes.drawn = sizes.draw(self.between)
        searched = [None, *sizes.drawn][int(torch.randint(len(sizes.drawn) + 1, ()))]
        with nullcontext() if searched is None else size_applied(model, searched):
            yield

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, objective: Objective = cross_entropy
    ) -> dict[str, Tensor]:
        """Return the loss of the largest network, with labels, plus the mean of the smaller ones', with its answers."""
        sizes = sizes_of(model)[1]
        with torch.no_grad(), evaluating(model):
            answers = F.softmax(model(images).float(), 1)
        result, losses = objective(model, images, labels), []
        for i in sizes.draw(self.between) if sizes.drawn is None else sizes.drawn:
            with size_applied(model, i):
                losses.append(objective(model, images, labels, answers)["loss"])
        largest, smaller = result["loss"], torch.stack(losses)
        return result | {"loss": largest + smaller.mean(), "largest_loss": largest, "smallest_loss": losses[0]}

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the retraction of U and V, then the clamp of S, for every prefix."""
        from zoo.callbacks import OrderedClamp, OrderedRetraction  # a finished model needs no Lightning

        return [OrderedRetraction(), OrderedClamp(self.tau)]

    def calibrate(self, model: nn.Module, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Estimate the statistics of every size below the largest anew: those of the training lag behind weights."""
        for i in range(len(sizes_of(model)[1])):
            with size_applied(model, i):
                reestimate_batch_norm_(model, [*batches()])

    def deploy(self, model: nn.Module) -> nn.Module:
        """Return the largest network, its factors folded."""
        deployed = super().deploy(model)
        delattr(sizes_of(deployed)[0], NAME)
        return deployed
