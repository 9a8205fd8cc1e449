"""Remove channels from a network during training."""

from collections.abc import Iterable
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.callbacks._cut_schedule import CutSchedule
from zoo.callbacks._notes import tell
from zoo.callbacks._rank_schedule import training_steps
from zoo.callbacks._sensitivity import Sensitivity
from zoo.callbacks._tied_state import renew, submodule_averages
from zoo.channels import ChannelGraph, prune_, trace_channels, widths
from zoo.channels.criteria import CRITERIA, Criterion, Scores
from zoo.channels.width_selection import choose_widths
from zoo.errors import UserError
from zoo.runtime.complexity import count_params
from zoo.sensitivity.criticality import ratio_offsets

FineTune = Literal["full", "norms"]


class ChannelPruning(CutSchedule):
    """Cut the least important channels of a network at one or a few points of the training.

    Coupled channels are removed together, through Torch-Pruning's dependency graph (`zoo.channels`). Tensors really
    shrink: the parameters stay the same objects, and the optimizer's state, an exponential average of the weights,
    BatchNorm's statistics and DistributedDataParallel follow. Of several cuts the k-th leaves target + (dense - target)
    (1 - k / cuts)^3 parameters.

    A group of channels whose weights are frozen keeps its width. So does a group without gradients, if the criterion
    uses them. The other groups lose more instead.

    Works in any LightningModule. One that is resumed must build its network with the widths of the checkpoint
    (`zoo.channels.build_widths`, or `zoo.channels.fit_shapes_` in ``on_load_checkpoint``): Lightning loads weights
    before callbacks.

    Args:
        compression: share of the network's parameters to remove, in (0, 1).
        criterion: decides which channels of a group are removed: a name in `zoo.channels.criteria`, or a criterion.
        sensitivity: decides which groups lose more or less than others; None: every group loses the same share.
        sensitivity_range: difference between the shares that the least and the most sensitive group lose.
        finetune: what trains after the last cut: everything, or only vectors (normalisation and biases).
        begin: when to cut, as a share of the training's steps; 0: before the first one.
        end: of several cuts, when the last one is made.
        cuts: how often.
        window: steps before a cut over which gradients are gathered, by a criterion that needs them.
        network: name of the submodule to prune, ``""``: the whole module.
        image_shape: (channels, height, width) of the network's images; None: its own ``image_shape``.

    Attributes:
        history: of each cut, the step and the widths after it; of the first, the sensitivities too.

    Raises:
        UserError: a value is out of range, the network cannot be traced, or the budget cannot be met.
    """

    saved = ("dense", "total", "measured", "gathered", "history", "made")

    def __init__(
        self,
        compression: float,
        criterion: str | Criterion = "l2",
        sensitivity: Sensitivity | None = None,
        sensitivity_range: float = 0.4,
        finetune: FineTune = "full",
        begin: float = 0.3,
        end: float = 0.6,
        cuts: int = 1,
        window: int = 16,
        network: str = "",
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(cuts, window, sensitivity, sensitivity_range, network)
        if not 0 < compression < 1:
            raise UserError(f"compression {compression} is invalid: give a share between 0 and 1")
        if not 0 <= begin < 1 or (cuts > 1 and not begin < end < 1):
            raise UserError("channel pruning needs 0 <= begin < end < 1")
        if finetune not in ("full", "norms"):
            raise UserError(f"finetune {finetune!r} is unknown: choose full or norms")
        self.compression, self.finetune = compression, finetune
        self.criterion = CRITERIA.get(criterion)() if isinstance(criterion, str) else criterion
        self.begin, self.end = begin, end if cuts > 1 else begin
        self.image_shape = image_shape
        self.graph: ChannelGraph | None = None
        self.dense: dict[str, int] = {}
        self.total = 0
        self.gathered: Scores = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Trace the network, schedule the cuts over the training's steps, and check that the target can be met."""
        total = training_steps(trainer)
        shares = (self.begin + (self.end - self.begin) * k / max(1, self.cuts - 1) for k in range(self.cuts))
        self._steps = [min(round(total * share), total - 1) for share in shares]
        self._trace(pl_module)
        if self.sensitivity is not None:
            self.sensitivity.check(pl_module)

    def _trace(self, pl_module: pl.LightningModule) -> None:
        network = self.network(pl_module)
        self.graph = trace_channels(network, self.image_shape)
        if not self.total:
            self.dense, self.total = dict(self.graph.sizes), count_params(network)
        if not self.done:
            size = (1 - self.compression) * self.total
            choose_widths(self.graph, self.dense, size, self.total, stays=frozen_groups(network, self.graph))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Cut if a cut is due: right after an optimizer's step and before the next backward pass."""
        if (due := self.due(trainer)) > self.made:
            self._cut(trainer, pl_module, due)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Gather the gradients' statistics for the criterion, or drop the gradients of weights that must not train."""
        network = self.network(pl_module)
        if self.done:
            if self.finetune == "norms":
                drop_gradients(p for p in network.parameters() if p.ndim > 1)
            return
        if self.is_near(trainer) and self.criterion.needs_gradients:
            assert self.graph is not None
            for group, value in self.criterion.observe(network, self.graph).items():
                valid = torch.where(value.isfinite().all(), value, 0.0)  # a gradient scaler skips steps that overflow
                self.gathered[group] = self.gathered[group].to(valid) + valid if group in self.gathered else valid

    def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, cuts: int) -> None:
        graph, network = self.graph, self.network(pl_module)
        assert graph is not None
        measured = self.sensitivity is not None and not self.measured
        if measured:
            assert self.sensitivity is not None
            computing = {g: [network.get_parameter(x) for x in names] for g, names in graph.producers.items()}
            self.measured = trainer.strategy.broadcast(self.sensitivity.measure(pl_module, computing))
        target = (1 - self.compression) * self.total
        size = target + (self.total - target) * (1 - cuts / self.cuts) ** 3
        offsets = ratio_offsets(self.measured, self.sensitivity_range) if self.measured else None
        scores = self.scores(network, graph)
        stays = dict.fromkeys(graph.sizes.keys() - scores.keys(), "it got no gradient") | frozen_groups(network, graph)
        chosen = choose_widths(graph, self.dense, size, self.total, offsets, stays)
        keep = {g: _best(scores[g], width) for g, width in chosen.items() if width < graph.sizes[g]}
        keep = trainer.strategy.broadcast(keep)
        averages = submodule_averages(trainer, self.name)
        self.graph = prune_(network, graph, keep, trainer.optimizers, averages)
        renew(trainer)
        prefix = f"{self.name}." if self.name else ""
        self.record(trainer, cuts, {prefix + name: n for name, n in widths(network).items()}, first=measured)
        kept = count_params(network)
        changed = ", ".join(f"{g} {graph.sizes[g]}→{len(k)}" for g, k in keep.items())
        tell(trainer, f"channels cut to {kept:,} parameters ({1 - kept / self.total:.1%} fewer): {changed or 'none'}")

    def scores(self, network: nn.Module, graph: ChannelGraph) -> Scores:
        """Return the channels' scores at a cut."""
        if self.criterion.needs_gradients and not self.gathered:
            raise UserError(
                "this criterion gathers gradients before the cut, and there was no step: cut later than at the start "
                "(begin), or choose another criterion"
            )
        return self.criterion.scores(network, graph, self.gathered)

    def go_back(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        """Load the state of an earlier checkpoint, whose weights and widths the module has loaded already."""
        super().go_back(trainer, state)
        self._trace(trainer.lightning_module)


def frozen_groups(network: nn.Module, graph: ChannelGraph) -> dict[str, str]:
    """Return the groups of channels without trainable weights, with the reason why they stay."""
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    computing = {group: {*graph.producers[group], *graph.scales[group]} for group in graph.sizes}
    return {group: "it is frozen" for group, names in computing.items() if not names & trained}


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Keep the next step from moving some parameters, weight decay and momentum included."""
    for p in parameters:
        p.grad = None


def _best(scores: Tensor, width: int) -> Tensor:
    return torch.sort(torch.topk(scores.cpu(), width).indices)[0]
