"""Ranks and widths that fall in modules which step their optimizers themselves."""

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from rank_training import Digits, Plain, fit
from torch import Tensor, nn

from zoo.callbacks import ChannelPruning, DynamicalLowRank, RankPruning
from zoo.errors import UserError
from zoo.lowrank.allocation import deployed_size
from zoo.lowrank.layers import factorized_layers
from zoo.runtime.complexity import count_params


class ByHand:
    """Steps every ``every`` batches, with a second optimizer, of another network, if asked for."""

    automatic_optimization = False

    def __init__(self, every: int = 1, second: bool = False) -> None:
        super().__init__()  # the module's
        self.every = every
        self.other = nn.Linear(64, 10) if second else None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take the steps."""
        optimizers = self.optimizers(use_pl_optimizer=True)
        images, labels = batch
        for net, optimizer in zip((self.net, self.other), self._list(optimizers), strict=False):
            x = images if net is self.net else images.flatten(1)
            self.manual_backward(F.cross_entropy(net(x), labels))
            if (batch_idx + 1) % self.every == 0:
                optimizer.step()
                optimizer.zero_grad()

    @staticmethod
    def _list(optimizers: object) -> list:
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return one optimizer for each network."""
        networks = [self.net] + ([self.other] if self.other is not None else [])
        return [torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9) for net in networks]


class ManualDigits(ByHand, Digits):
    pass


class ManualPlain(ByHand, Plain):
    pass


class Timing(pl.Callback):
    """Notes in which batch the schedule made its last change."""

    def __init__(self, schedule: pl.Callback) -> None:
        self.schedule, self.seen, self.last = schedule, 0, -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Look."""
        if len(self.schedule.history) > self.seen:
            self.seen, self.last = len(self.schedule.history), trainer.fit_loop.total_batch_idx


WAYS = [(1, False), (4, False), (1, True), (2, True)]


@pytest.mark.parametrize(("every", "second"), WAYS)
def test_ranks_are_cut_over_the_whole_training_however_often_it_steps(every: int, second: bool) -> None:
    module, schedule = ManualDigits(every, second), RankPruning(0.5, begin=0.1, end=0.6, cuts=4, window=2)
    timing = Timing(schedule)
    fit(module, [schedule, timing])  # 32 batches
    assert schedule.done
    assert abs(timing.last - 0.6 * 32) <= 1


@pytest.mark.parametrize(("every", "second"), WAYS)
def test_channels_are_cut_over_the_whole_training_however_often_it_steps(every: int, second: bool) -> None:
    module, schedule = (
        ManualPlain(every, second),
        ChannelPruning(0.5, "taylor", cuts=3, window=4, network="net", image_shape=(1, 8, 8)),
    )
    dense, timing = count_params(module.net), Timing(schedule)
    fit(module, [schedule, timing])
    assert schedule.done
    assert abs(timing.last - 0.6 * 32) <= 1
    assert count_params(module.net) <= 0.51 * dense


@pytest.mark.parametrize("second", [False, True])
def test_max_steps_ends_a_training_that_steps_two_optimizers(second: bool) -> None:
    """Lightning counts the steps of both."""
    module, schedule = ManualDigits(second=second), RankPruning(0.5, cuts=4, window=2)
    trainer = fit(module, [schedule], max_steps=24)
    assert trainer.global_step == 24
    assert schedule.done


def test_a_cycle_of_dynamical_training_counts_the_steps_of_the_optimizer_of_the_factors() -> None:
    class Widest(pl.Callback):
        widest = 0

        def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
            ranks = [layer.rank for _, layer in factorized_layers(module)]
            self.widest = max(self.widest, *ranks)

    ended = {}
    for second in (False, True):
        torch.manual_seed(0)
        module, schedule, watch = ManualDigits(second=second), DynamicalLowRank(0.5, local_steps=2), Widest()
        fit(module, [schedule, watch])
        assert schedule.done
        assert watch.widest > 40  # it was augmented
        size = deployed_size(module.net)
        assert size.factors + size.rest <= 0.51 * size.dense
        ended[second] = {name: p.detach().clone() for name, p in module.net.named_parameters()}
    assert all(torch.equal(p, ended[True][name]) for name, p in ended[False].items())


def test_factors_of_several_optimizers_are_refused_by_dynamical_training() -> None:
    class Split(ManualDigits):
        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net[:4], self.net[4:])]

    with pytest.raises(UserError, match="2 optimizers train factors"):
        fit(Split(), [DynamicalLowRank(0.5)])


def test_a_training_that_ends_before_its_last_cut_says_so() -> None:
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            trainer.should_stop = True

    with pytest.warns(UserWarning, match="before the last cut of RankPruning"):
        fit(Digits(), [RankPruning(0.5, end=0.9), Stop()])


@pytest.mark.parametrize("schedule", [RankPruning, DynamicalLowRank, ChannelPruning])
def test_a_network_that_the_module_has_not_is_refused_with_the_nearest_name(schedule: type) -> None:
    with pytest.raises(UserError, match=r"submodule 'nett'.*net"):
        fit(Digits(), [schedule(0.5, network="nett")])
