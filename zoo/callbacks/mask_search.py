"""Learn which channels to cut: scores are trained on the loss while the weights stay fixed."""

from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.callbacks._rank_schedule import steps_taken, training_steps
from zoo.callbacks._tied_state import renew
from zoo.callbacks.channel_pruning import ChannelPruning, drop_gradients, frozen_groups
from zoo.channels import ChannelGraph
from zoo.channels.criteria import CRITERIA, Scores
from zoo.channels.masks import ChannelMasks
from zoo.channels.width_selection import choose_widths
from zoo.errors import UserError

Start = Literal["largest", "percentile"]


class MaskSearch(ChannelPruning):
    """Train a score per channel, through masks that let the best ones of each group pass, then cut the others.

    From ``warmup`` to ``begin`` the weights stay fixed (their gradients are dropped before each step), and Adam trains
    the scores on whatever loss the module returns; statistics of normalisation follow the masked network. Then the
    masked channels are cut, and everything is fine-tuned. The scores are a state of this callback, saved with every
    checkpoint, even one written after an exception, when the masks are already removed. Under an fp16 gradient scaler
    their gradients stay scaled, which Adam does not notice; steps that overflow are skipped.

    Args:
        compression, network, image_shape: see `ChannelPruning`; every group loses the same share.
        begin: when to cut, as a share of the training's steps.
        warmup: share of the steps before any mask, during which weights are trained as usual.
        lr: of the scores.
        start: scores to start with, from the L2 norms of the channels: over the ``largest`` of the group, or clipped
            to 1 at a ``percentile`` of the group.
        percentile: which, in 0..1.

    Raises:
        UserError: see `ChannelPruning`.
    """

    def __init__(
        self,
        compression: float,
        begin: float = 0.3,
        warmup: float = 0.0,
        lr: float = 0.01,
        start: Start = "largest",
        percentile: float = 0.9,
        network: str = "",
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(compression, "l2", begin=begin, network=network, image_shape=image_shape)
        if not 0 <= warmup < begin:
            raise UserError("scores are trained from warmup to begin: give 0 <= warmup < begin")
        if not lr > 0 or not 0 < percentile <= 1:
            raise UserError("mask search needs lr > 0 and 0 < percentile <= 1")
        self.warmup, self.lr, self.start, self.percentile = warmup, lr, start, percentile
        self.masks: ChannelMasks | None = None
        self._adam: torch.optim.Adam | None = None
        self._saved: dict[str, Any] = {}
        self._first = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Schedule the search and the cut, and resume an interrupted search."""
        super().on_fit_start(trainer, pl_module)
        self._first = round(training_steps(trainer) * self.warmup)
        if not self.done and self._first >= self._steps[0]:
            raise UserError(
                f"the search for channels begins in step {self._first} and ends in step {self._steps[0]}, before any "
                "score is trained: train for longer, or set warmup and begin further apart"
            )
        self._take_up(pl_module)

    def _take_up(self, pl_module: pl.LightningModule) -> None:
        if self._saved and not self.done:
            self._install(pl_module, self._saved["scores"])
            assert self._adam is not None
            self._adam.load_state_dict(self._saved["adam"])
        self._saved = {}

    def _install(self, pl_module: pl.LightningModule, scores: Scores) -> None:
        assert self.graph is not None
        size = (1 - self.compression) * self.total
        network = self.network(pl_module)
        stays = frozen_groups(network, self.graph)
        chosen = choose_widths(self.graph, self.dense, size, self.total, stays=stays)
        self.masks = ChannelMasks(network, self.graph, scores, chosen)
        self._adam = torch.optim.Adam(self.masks.scores.values(), lr=self.lr)
        renew(pl_module.trainer)  # a compiled network does not see new hooks

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin the search, or end it with the cut, when it is due."""
        if self.masks is None and not self.done and steps_taken(trainer) >= self._first:
            assert self.graph is not None
            norms = CRITERIA.get("l2")().scores(self.network(pl_module), self.graph, {})
            self._install(pl_module, {group: self._start(x) for group, x in norms.items()})
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def _start(self, norms: Tensor) -> Tensor:
        if self.start == "largest":
            return norms / norms.max().clamp_min(torch.finfo(norms.dtype).tiny)
        scale = torch.quantile(norms, self.percentile).clamp_min(torch.finfo(norms.dtype).tiny)
        return (norms / scale).clamp(0, 1)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Step the scores instead of the weights."""
        if self.masks is None or self._adam is None:
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
            return
        drop_gradients(self.network(pl_module).parameters())
        if isinstance(trainer.strategy, DDPStrategy):
            for p in self.masks.scores.values():
                p.grad = trainer.strategy.reduce(p.grad, reduce_op="mean") if p.grad is not None else None
        found = [p.grad.isfinite().all() for p in self.masks.scores.values() if p.grad is not None]
        if found and bool(torch.stack(found).all()):
            self._adam.step()
        self._adam.zero_grad()

    def scores(self, network: nn.Module, graph: ChannelGraph) -> Scores:
        """Return the learned scores."""
        assert self.masks is not None
        whole = {g: torch.ones(n) for g, n in graph.sizes.items()}
        return whole | {g: p.detach() for g, p in self.masks.scores.items()}

    def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, cuts: int) -> None:
        super()._cut(trainer, pl_module, cuts)
        self._let_go()
        renew(trainer)

    def _let_go(self) -> None:
        if self.masks is not None:
            self.masks.remove()
        self.masks = self._adam = None

    def go_back(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        """Load the state of an earlier checkpoint."""
        self._let_go()
        super().go_back(trainer, state)
        self._take_up(trainer.lightning_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the masks from a network whose training was interrupted: Lightning tears nothing down then."""
        self._break_off()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the masks from a network whose training ended before the cut."""
        self._break_off()

    def _break_off(self) -> None:
        """Remove the masks, and keep the search for a checkpoint or a further fit."""
        self._saved = self._search()
        self._let_go()

    def _search(self) -> dict[str, Any]:
        """Return the scores and their optimizer's state, from the masks or from an interrupted search."""
        if self.masks is None or self._adam is None:
            return self._saved
        scores = {g: p.detach().clone() for g, p in self.masks.scores.items()}
        return {"scores": scores, "adam": self._adam.state_dict()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to continue the search."""
        search = self._search()
        return super().state_dict() | ({"search": search} if search else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved."""
        state = dict(state_dict)
        self._saved = state.pop("search", {})
        super().load_state_dict(state)
