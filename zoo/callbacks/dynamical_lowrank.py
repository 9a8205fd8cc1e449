"""Dynamical low-rank training: bases turn towards the gradient, truncation sets the ranks."""

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Optimizer

from zoo.budget import BLOCKS
from zoo.callbacks._rank_schedule import RankSchedule, check_goal, steps_taken, training_steps, trains
from zoo.callbacks._tied_state import averages_of, renew
from zoo.errors import UserError
from zoo.lowrank.allocation import cut_on_schedule, cut_to_tolerance, deployed_size, factor_budget
from zoo.lowrank.factorize import Ranks, layers_of
from zoo.lowrank.layers import Factorized, factorized_layers
from zoo.lowrank.rank_change import augment_, diagonalize_, truncate_
from zoo.lowrank.rank_selection import fast_ranks
from zoo.lowrank.saliency import SALIENCIES
from zoo.runtime.optimizer_state import refuse_unknown_state


class DynamicalLowRank(RankSchedule):
    """Augment the bases U and V by their gradients, train S in them for some steps, truncate; then repeat.

    One cycle takes 1 + ``local_steps`` steps of the optimizer. In the first, no weight moves: the gradients of U and V
    widen the bases to twice the rank (`zoo.lowrank.rank_change.augment_`). In the others S and everything that is not
    factorized trains, and the bases are frozen. Then the SVD of S is truncated; for a convolution in Tucker-2 form, S
    is the core and its higher-order SVD is truncated. The gradient flow of the factors, with the inverse of S in it, is
    never integrated, so small singular values do no harm. A layer that the module froze, in whole or in part, is left
    alone.

    Source: RobustDLRT (Schotthoefer, Yang, Schnake, arXiv 2505.08022), section 3 and its released code, whose last
    epoch keeps the ranks fixed too; DLRT (arXiv 2205.13571). This project's own: the truncation that meets a budget,
    ranks that run fast, and second moments that follow as variances (see `zoo.linalg.basis`).

    Args:
        compression: share of the dense network's parameters to remove; truncations follow a cubic schedule there.
        tolerance: instead of a compression, the relative Frobenius error of each truncation in each layer.
        local_steps: steps on S in each cycle (10 in the paper's CIFAR-10 runs).
        end: share of the training's steps after which a budget is met.
        fixed: share of the training's steps after which bases and ranks stay, at the latest before the last step.
        network: name of the submodule to train in this way, whose parameters count, ``""``: the whole module.

    Attributes:
        history: the step and the ranks after each truncation that changed one.

    Raises:
        UserError: a value is out of range, or several optimizers train factors.
    """

    changes_often = True

    saved = ("start", "taken", "settled", "gradients", "history")

    def __init__(
        self,
        compression: float | None = None,
        tolerance: float | None = None,
        local_steps: int = 10,
        end: float = 0.6,
        fixed: float = 0.9,
        network: str = "",
    ) -> None:
        super().__init__(network)
        check_goal(compression, tolerance)
        if local_steps < 1 or not 0 < end <= fixed <= 1:
            raise UserError("dynamical low-rank training needs a step on S at least, and 0 < end <= fixed <= 1")
        self.compression, self.tolerance, self.local_steps = compression, tolerance, local_steps
        self.end, self.fixed = end, fixed
        self.start: int | None = None
        self.taken = 0
        self.settled = False
        self.gradients: dict[str, tuple[Tensor, Tensor]] = {}
        self.layers: dict[str, Factorized] = {}
        self._steps = 0
        self._known = False
        self._optimizer: Optimizer | None = None

    @property
    def done(self) -> bool:
        """Whether bases and ranks are final."""
        return self.settled

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the layers, and freeze the factors that this step of the cycle does not train."""
        self._steps = training_steps(trainer)
        layers = factorized_layers(self.network(pl_module), self.name)
        self.layers = {name: layer for name, layer in layers if layer.trains}
        if self.start is None:
            self.start = sum(x.deployed_size(self.layers[x.name].rank) for x in layers_of(self.layers))
        self._optimizer = _trainer_of(self.layers.values(), trainer.optimizers)
        self._take_up(trainer)

    def _take_up(self, trainer: pl.Trainer) -> None:
        """Resume from a checkpoint, whose gradients are on the CPU."""
        for name, (u, v) in self.gradients.items():
            device = self.layers[name].S.device
            self.gradients[name] = u.to(device), v.to(device)
        self._freeze(trainer)

    def _is_late(self, trainer: pl.Trainer) -> bool:
        """Return whether bases and ranks must be final now: short trainings have no step between ``fixed`` and 1."""
        return steps_taken(trainer) >= min(self.fixed * self._steps, self._steps - 1)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Augment or truncate, if the step before this one was the last of its kind."""
        if not self.settled and (self._is_late(trainer) or self.taken > self.local_steps):
            self._truncate(trainer, pl_module)
        elif self.gradients:
            for name, (u, v) in self.gradients.items():
                augment_(self.layers[name], u, v, trainer.optimizers, averages_of(trainer, name))
            self.gradients = {}
            self._freeze(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check after the first step, not at the first change of ranks, that the optimizers' state can follow."""
        if not self._known:
            factors = [p for layer in self.layers.values() for p in (layer.U, layer.S, layer.V)]
            self._known = refuse_unknown_state(trainer.optimizers, factors)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Save the gradients of U and V and move nothing, in the first step of a cycle."""
        if self.settled or optimizer is not self._optimizer:
            return
        if not self.taken:
            found = {name: (layer.U.grad, layer.V.grad) for name, layer in self.layers.items()}
            self.gradients = {name: (u, v) for name, (u, v) in found.items() if u is not None and v is not None}
            optimizer.zero_grad(set_to_none=True)
        self.taken += 1

    def _truncate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cut every layer to the singular values that the tolerance or the budget leaves, and begin a new cycle."""
        for name, layer in self.layers.items():
            diagonalize_(layer, trainer.optimizers, averages_of(trainer, name))
        late = self._is_late(trainer)
        progress = 1.0 if late else steps_taken(trainer) / (self.end * self._steps)
        ranks = trainer.strategy.broadcast(self._choose(pl_module, progress))
        for name, layer in self.layers.items():
            truncate_(layer, ranks[name], trainer.optimizers, averages_of(trainer, name))
        self.taken, self.gradients, self.settled = 0, {}, late
        self._freeze(trainer)
        if not self.history or ranks != self.history[-1]["ranks"]:
            self.history.append({"step": trainer.global_step, "ranks": ranks})

    def _choose(self, pl_module: pl.LightningModule, progress: float) -> Ranks:
        shapes = layers_of(self.layers)
        ranks = {name: layer.rank for name, layer in self.layers.items()}
        scores = {name: SALIENCIES["spectrum"].scores(layer, {}) for name, layer in self.layers.items()}
        if self.tolerance is not None:
            needed = {x.name: cut_to_tolerance(x, ranks[x.name], scores[x.name], self.tolerance) for x in shapes}
            return {x.name: min(needed[x.name], max(fast_ranks(x, BLOCKS[0]), default=x.full_rank)) for x in shapes}
        assert self.compression is not None
        assert self.start is not None
        size = deployed_size(self.network(pl_module))
        target = factor_budget(size, self.compression, shapes, ranks)
        return cut_on_schedule(shapes, ranks, scores, self.start, target, progress, size.dense)

    def _freeze(self, trainer: pl.Trainer) -> None:
        """Let the bases take gradients in the first step of a cycle only."""
        frozen = self.settled or self.taken > 0
        for layer in self.layers.values():
            for basis in (layer.U, layer.V):
                basis.requires_grad_(not frozen)
                basis.grad = None
        renew(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the bases take gradients again."""
        self._unfreeze()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let the bases take gradients again when the training is interrupted: Lightning tears nothing down then."""
        self._unfreeze()

    def _unfreeze(self) -> None:
        for layer in self.layers.values():
            layer.U.requires_grad_(True), layer.V.requires_grad_(True)

    def go_back(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        """Load an earlier state, and freeze the factors that were frozen then."""
        super().go_back(trainer, state)
        self._take_up(trainer)


def _trainer_of(layers: Iterable[Factorized], optimizers: Iterable[Optimizer]) -> Optimizer | None:
    """Return the optimizer whose steps make up a cycle: the one that trains the factors; None if there is none."""
    factors = [factor for layer in layers for factor in (layer.U, layer.S, layer.V)]
    found = [optimizer for optimizer in optimizers if any(trains(optimizer, factor) for factor in factors)]
    if len(found) > 1:
        raise UserError(
            f"{len(found)} optimizers train factors, but a cycle of dynamical low-rank training counts the steps of "
            "one: give the factors of all layers to a single optimizer"
        )
    return found[0] if found else None
