"""Lower the ranks of factorized layers during training, by the saliency of their singular components."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.callbacks._cut_schedule import CutSchedule
from zoo.callbacks._notes import tell
from zoo.callbacks._rank_schedule import check_goal, training_steps, trains
from zoo.callbacks._sensitivity import Sensitivity
from zoo.callbacks._tied_state import averages_of, project_constraints, renew
from zoo.errors import UserError, unknown_name
from zoo.linalg.basis import slicing
from zoo.lowrank.allocation import cut_on_schedule, cut_to_tolerance, deployed_size, factor_budget, share_scores
from zoo.lowrank.factorize import Ranks, layers_of
from zoo.lowrank.layers import Factorized, factorized_layers
from zoo.lowrank.rank_change import change_basis_, diagonalize_
from zoo.lowrank.saliency import SALIENCIES, Statistics
from zoo.runtime.optimizer_state import refuse_unknown_state
from zoo.sensitivity.criticality import ratio_offsets


class RankPruning(CutSchedule):
    """Cut the least salient singular components of the factorized layers at a few points of the training.

    Between ``begin`` and ``end`` the parameters fall from their initial number to the target along a cubic (fast first,
    as in AdaLoRA, arXiv 2303.10512, equation 13). Each cut is made where it costs least per parameter over all layers,
    at ranks that run fast. Tensors really shrink: the parameters stay the same objects, and the optimizer's state, an
    exponential average of the weights and DistributedDataParallel follow. Removed components do not return. A layer
    whose factors do not pay yet (full rank) is left alone. So is a frozen layer or, if the saliency uses gradients, a
    layer without any.

    Works in any LightningModule that holds `zoo.lowrank.layers.Factorized` layers. A module that is resumed must build
    its layers with the ranks of the checkpoint: Lightning loads weights before callbacks.

    Args:
        compression: share of the dense network's parameters to remove, in (0, 1).
        tolerance: instead of a compression, the relative Frobenius error that each cut of a layer may make (for a
            saliency, the root of its share).
        saliency: ``spectrum``, ``gradient`` or ``second_order``, see `zoo.lowrank.saliency`.
        begin, end: when to cut, as shares of the training's steps.
        cuts: how often.
        window: steps before each cut over which gradients are gathered.
        sensitivity: how much depends on each layer's S; sensitive layers lose less, and the saliency only decides which
            of a layer's components are removed. None: the saliency decides over all layers.
        sensitivity_range: difference between the shares of their weights that the least and the most sensitive layer
            lose.
        network: name of the submodule to prune, whose parameters count, ``""``: the whole module.

    Attributes:
        history: of each cut, the step and the ranks after it; of the first, the sensitivities too.

    Raises:
        UserError: a value is out of range, or the budget is below the smallest possible ranks.
    """

    saved = ("start", "made", "measured", "gathered", "since", "history")

    def __init__(
        self,
        compression: float | None = None,
        tolerance: float | None = None,
        saliency: str = "second_order",
        begin: float = 0.1,
        end: float = 0.6,
        cuts: int = 8,
        window: int = 16,
        sensitivity: Sensitivity | None = None,
        sensitivity_range: float = 0.4,
        network: str = "",
    ) -> None:
        super().__init__(cuts, window, sensitivity, sensitivity_range, network)
        check_goal(compression, tolerance)
        if sensitivity is not None and tolerance is not None:
            raise UserError("sensitivities share out a compression: give no tolerance")
        if not 0 <= begin < end < 1:
            raise UserError("rank pruning needs 0 <= begin < end < 1")
        if saliency not in SALIENCIES:
            raise unknown_name("saliency", saliency, SALIENCIES)
        self.compression, self.tolerance = compression, tolerance
        self.saliency = SALIENCIES[saliency]
        self.begin, self.end = begin, end
        self.start: int | None = None
        self.gathered: dict[str, Statistics] = {}
        self.since = 0
        self._known = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Schedule the cuts over the training's steps, and check that the target can be met."""
        total = training_steps(trainer)
        if total < 2 and self.saliency.needs_gradients:
            raise UserError(
                "this saliency gathers gradients before a cut: train for two steps at least, or by spectrum"
            )
        shares = (self.begin + (self.end - self.begin) * (k + 1) / self.cuts for k in range(self.cuts))
        self._steps = [min(max(1, round(total * share)), total - 1) for share in shares]
        layers = self._prunable(pl_module)
        if self.start is None:
            self.start = sum(x.deployed_size(layers[x.name].rank) for x in layers_of(layers))
        self._place(layers)
        if self.compression is not None and not self.done:
            unknown = {name: torch.ones(layer.rank) for name, layer in layers.items()}
            self._choose(pl_module, layers, unknown, self.cuts)
            self._say_if_met(pl_module)
        if self.sensitivity is not None:
            self.sensitivity.check(pl_module)

    def _say_if_met(self, pl_module: pl.LightningModule) -> None:
        size = deployed_size(self.network(pl_module))
        removed = 1 - (size.factors + size.rest) / size.dense
        if self.compression is not None and removed >= self.compression:
            tell(
                pl_module.trainer,
                f"ranks stay as they are: {removed:.1%} of the parameters are removed already, {self.compression:.1%} "
                "are requested",
            )

    def _place(self, layers: dict[str, Factorized]) -> None:
        """Move the gathered statistics to the layers' devices: a checkpoint brings them to the CPU."""
        for name, sums in self.gathered.items():
            self.gathered[name] = {key: value.to(layers[name].S.device) for key, value in sums.items()}

    def _prunable(self, module: nn.Module) -> dict[str, Factorized]:
        """Return the layers of the network that may be cut, by their names in the module."""
        layers = factorized_layers(self.network(module), self.name)
        return {name: layer for name, layer in layers if layer.pays and layer.trains}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start to gather, or cut if a cut is due: after an optimizer's step and before the next backward pass."""
        due = self.due(trainer)
        # Under manual optimization there may have been no step in the window yet.
        if due > self.made and not (self.gathered and trainer.global_step <= self.since):
            self._cut(trainer, pl_module, due)
        if self.done or self.gathered or not self.saliency.needs_gradients:
            return
        if self.is_near(trainer):
            self.since = trainer.global_step
            for name, layer in self._prunable(pl_module).items():
                diagonalize_(layer, trainer.optimizers, averages_of(trainer, name))
                self.gathered[name] = {"steps": torch.zeros((), device=layer.S.device)}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check after the first step, not at the first change of ranks, that the optimizers' state can follow."""
        if not self._known:
            factors = [p for layer in self._prunable(pl_module).values() for p in (layer.U, layer.S, layer.V)]
            self._known = refuse_unknown_state(trainer.optimizers, factors)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Gather the gradients' statistics for the saliency, from whatever loss is trained."""
        layers = dict(factorized_layers(pl_module)) if self.gathered else {}
        for name, sums in self.gathered.items():
            layer = layers[name]
            if trains(optimizer, layer.S) and all(p.grad is not None for p in (layer.U, layer.S, layer.V)):
                found = {"steps": torch.ones_like(sums["steps"])} | self.saliency.observe(layer)
                valid = torch.stack([value.isfinite().all() for value in found.values()]).all()
                for key, value in found.items():  # a gradient scaler skips the steps in which fp16 overflows
                    sums[key] = sums.get(key, 0.0) + torch.where(valid, value, 0.0)

    def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, cuts: int) -> None:
        layers = self._prunable(pl_module)
        for name, layer in layers.items():
            if name not in self.gathered:
                diagonalize_(layer, trainer.optimizers, averages_of(trainer, name))
        if self.saliency.needs_gradients and layers:
            layers = {name: layer for name, layer in layers.items() if len(self.gathered.get(name, {})) > 1}
            if not layers:
                raise UserError("no factorized layer got a gradient before a cut: does the loss depend on them?")
        scores = {name: self.saliency.scores(layer, self.gathered.get(name, {})) for name, layer in layers.items()}
        scores = {name: torch.sort(values, descending=True)[0] for name, values in scores.items()}
        first = self.sensitivity is not None and not self.measured
        if first:
            assert self.sensitivity is not None
            cores: dict[str, list[nn.Parameter]] = {name: [layer.S] for name, layer in layers.items()}
            self.measured = trainer.strategy.broadcast(self.sensitivity.measure(pl_module, cores))
        ranks = self._choose(pl_module, layers, self._shares(layers) if self.measured else scores, cuts)
        ranks = trainer.strategy.broadcast(ranks)
        before = {name: layer.rank for name, layer in layers.items()}
        for name, layer in layers.items():
            if ranks[name] < layer.rank:
                gathered = self.gathered.get(name, {})
                kept = self.saliency.kept(layer, gathered, ranks[name])
                averages = averages_of(trainer, name)
                for same in (layer, *averages):
                    self.saliency.recover_(same, gathered, kept)
                change_basis_(layer, slicing(layer.S, *kept), trainer.optimizers, averages)
        project_constraints(trainer)
        renew(trainer)
        self.record(trainer, cuts, ranks, first=first)
        self._report(pl_module, before, ranks)

    def _shares(self, layers: dict[str, Factorized]) -> dict[str, Tensor]:
        """Return scores by which sensitive layers lose smaller shares."""
        offsets = ratio_offsets(self.measured, self.sensitivity_range)
        return {x.name: share_scores(x, layers[x.name].rank, offsets.get(x.name, 0.0)) for x in layers_of(layers)}

    def _choose(self, module: nn.Module, layers: dict[str, Factorized], scores: dict[str, Tensor], cuts: int) -> Ranks:
        """Return the ranks after a number of cuts."""
        shapes = layers_of(layers)
        ranks = {name: layer.rank for name, layer in layers.items()}
        if self.tolerance is not None:
            return {x.name: cut_to_tolerance(x, ranks[x.name], scores[x.name], self.tolerance) for x in shapes}
        assert self.compression is not None
        assert self.start is not None
        size = deployed_size(self.network(module))
        target = factor_budget(size, self.compression, shapes, ranks)
        if not layers and target < 0:
            removed = 1 - (size.factors + size.rest) / size.dense
            raise UserError(
                f"no rank can fall, and {removed:.1%} of the parameters are removed, not "
                f"{self.compression:.1%}: no factorized layer trains at a rank r with r (n + m) clearly below n m"
            )
        target = max(0.0, target)
        return cut_on_schedule(shapes, ranks, scores, self.start, target, cuts / self.cuts, size.dense)

    def _report(self, pl_module: pl.LightningModule, before: Ranks, after: Ranks) -> None:
        size = deployed_size(self.network(pl_module))
        kept = size.factors + size.rest
        changed = ", ".join(f"{name} {before[name]}→{after[name]}" for name in before if after[name] < before[name])
        removed = f"{1 - kept / size.dense:.1%} fewer"
        tell(pl_module.trainer, f"ranks cut to {kept:,} parameters ({removed}): {changed or 'none'}")

    def go_back(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        """Load an earlier state, with the statistics gathered until then."""
        super().go_back(trainer, state)
        self._place(self._prunable(trainer.lightning_module))
