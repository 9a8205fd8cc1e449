"""Bases turn towards the gradient without moving the weight; truncations keep what they promise."""

from itertools import pairwise

import lightning.pytorch as pl
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_training import Digits, fit
from torch import Tensor, nn

from zoo.budget import Budget
from zoo.callbacks import DynamicalLowRank
from zoo.errors import UserError
from zoo.linalg import orthonormality_error
from zoo.linalg.stiefel import complement, random_stiefel
from zoo.lowrank.allocation import deployed_size
from zoo.lowrank.factorize import fold
from zoo.lowrank.layers import FactorizedConv2d, FactorizedLinear, factorized_layers
from zoo.lowrank.rank_change import augment_
from zoo.methods import Method
from zoo.methods.rank_adaptive import RankAdaptive
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.methods.robust_rank_adaptive import RobustRankAdaptive, spread
from zoo.runs.run import Run


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 99))
def test_the_complement_holds_the_most_of_a_direction(r: int, k: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, d = random_stiefel(14, r), torch.randn(14, 6)
    k = min(k, 14 - r)
    q = complement(x, d, k)
    assert q.shape == (14, k)
    both = torch.cat([x, q], 1)
    assert torch.linalg.matrix_norm(both.T @ both - torch.eye(r + k)) <= 1e-5
    normal = d - x @ (x.T @ d)
    kept = (q.T @ normal).square().sum()
    torch.testing.assert_close(kept, torch.linalg.svdvals(normal)[:k].square().sum(), rtol=1e-3, atol=1e-3)


def test_a_direction_that_vanishes_still_gives_a_basis() -> None:
    x = random_stiefel(9, 3)
    both = torch.cat([x, complement(x, torch.zeros(9, 3), 3)], 1)
    assert torch.linalg.matrix_norm(both.T @ both - torch.eye(6)) <= 1e-5


@pytest.mark.parametrize("method", [RankAdaptive(), RobustRankAdaptive(), RobustLowrank(rank_budget="adaptive")])
def test_what_cannot_be_met_is_refused_before_training(method: Method) -> None:
    model = timm.create_model("test_resnet", num_classes=10)
    with pytest.raises(UserError, match="cannot be reached here"):
        method.plan(model, Budget(compression=0.99))


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": 0.5, "tolerance": 0.1}, {"compression": 1.5}, {"tolerance": 0.0}]
    + [{"compression": 0.5} | wrong for wrong in ({"local_steps": 0}, {"end": 0.0}, {"end": 0.8, "fixed": 0.7})],
)
def test_impossible_options_of_the_callback_are_refused(options: dict) -> None:
    with pytest.raises(UserError):
        DynamicalLowRank(**options)


def test_augmentation_keeps_the_weight_and_holds_the_gradient() -> None:
    layer = FactorizedLinear(nn.Linear(20, 16), 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9)
    layer(torch.randn(8, 20)).square().sum().backward()
    gradient_u, gradient_v = layer.U.grad.clone(), layer.V.grad.clone()
    optimizer.step()
    with torch.no_grad():
        layer.U.copy_(torch.linalg.qr(layer.U)[0])
        layer.V.copy_(torch.linalg.qr(layer.V)[0])
    weight, momentum = layer.weight.detach().clone(), optimizer.state[layer.S]["momentum_buffer"].clone()
    augment_(layer, gradient_u, gradient_v, [optimizer])
    assert layer.rank == 8
    torch.testing.assert_close(layer.weight, weight, atol=1e-6, rtol=1e-5)
    for basis, gradient in ((layer.U.detach(), gradient_u), (layer.V.detach(), gradient_v)):
        assert orthonormality_error(basis) <= 1e-5
        torch.testing.assert_close(basis @ (basis.T @ gradient), gradient, atol=1e-5, rtol=1e-4)
    followed = optimizer.state[layer.S]["momentum_buffer"]
    assert torch.equal(followed[:4, :4], momentum)
    assert followed[4:].abs().max() == followed[:, 4:].abs().max() == 0


def test_augmentation_stops_at_the_full_rank() -> None:
    layer = FactorizedLinear(nn.Linear(20, 6), 4)
    augment_(layer, torch.randn(6, 4), torch.randn(20, 4))
    assert layer.rank == 6


class Watch(pl.Callback):
    """Keeps what each step leaves: ranks, and whether a weight moved."""

    def __init__(self) -> None:
        self.ranks: list[dict[str, int]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.orthonormality: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        layers = dict(factorized_layers(pl_module))
        self.ranks.append({name: layer.rank for name, layer in layers.items()})
        self.weights.append({name: layer.weight.detach().clone() for name, layer in layers.items()})
        self.orthonormality += [float(orthonormality_error(x.detach())) for y in layers.values() for x in (y.U, y.V)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_cycle_widens_trains_and_truncates_to_the_budget(optimizer: str) -> None:
    module, watch, cycle = Digits(optimizer), Watch(), DynamicalLowRank(0.6, local_steps=3)
    dense = deployed_size(module).dense
    start = {name: layer.weight.detach().clone() for name, layer in factorized_layers(module)}
    fit(module, [cycle, watch])
    assert max(watch.orthonormality) <= 1e-5
    assert cycle.done
    assert 0.6 <= 1 - sum(p.numel() for p in fold(module).parameters()) / dense <= 0.62
    # The first cycle: a step that only looks, then three on S, in bases of twice the rank.
    first, *on_s = watch.ranks[:4]
    full = {name: min(len(layer.U), len(layer.V)) for name, layer in factorized_layers(module)}
    assert on_s == [{name: min(2 * rank, full[name]) for name, rank in first.items()}] * 3
    assert all(torch.equal(value, watch.weights[0][name]) for name, value in start.items())
    assert not any(torch.equal(a[name], b[name]) for a, b in pairwise(watch.weights[:4]) for name in a)


@pytest.mark.parametrize(("steps", "fixed"), [(1, 0.9), (2, 0.9), (4, 0.9), (9, 0.9), (12, 1.0)])
def test_the_shortest_training_ends_with_the_budget(steps: int, fixed: float) -> None:
    module, cycle = Digits(), DynamicalLowRank(0.6, local_steps=2, fixed=fixed)
    dense = deployed_size(module).dense
    fit(module, [cycle], max_epochs=None, max_steps=steps)
    assert cycle.done
    assert 0.6 <= 1 - sum(p.numel() for p in fold(module).parameters()) / dense <= 0.62


def test_a_layer_that_no_factors_pay_for_goes_through_a_truncation() -> None:
    class Narrow(Digits):
        def __init__(self) -> None:
            super().__init__()
            self.net[0] = FactorizedConv2d(nn.Conv2d(1, 32, 1), 1)

    module = Narrow()
    fit(module, [DynamicalLowRank(tolerance=0.3, local_steps=3)], max_epochs=None, max_steps=8)
    assert module.net[0].rank == 1


def test_a_frozen_layer_stays_and_the_others_meet_the_budget() -> None:
    module = Digits()
    module.net[4].requires_grad_(False)
    frozen = {name: p.clone() for name, p in module.net[4].named_parameters()}
    schedule = DynamicalLowRank(0.6, local_steps=2)
    fit(module, [schedule])
    assert all(torch.equal(p, frozen[name]) and not p.requires_grad for name, p in module.net[4].named_parameters())
    assert all(layer.trains for name, layer in factorized_layers(module) if name != "net.4")
    size = deployed_size(module)
    assert 0.6 <= 1 - (size.factors + size.rest) / size.dense <= 0.62


def test_a_layer_whose_basis_is_frozen_keeps_it_frozen_and_keeps_its_rank() -> None:
    module = Digits()
    layer = module.net[4]
    layer.U.requires_grad_(False)
    before, rank = layer.U.clone(), layer.rank
    fit(module, [DynamicalLowRank(0.5, local_steps=2)])
    assert torch.equal(layer.U, before)
    assert (layer.U.requires_grad, layer.V.requires_grad, layer.rank) == (False, True, rank)


def test_a_training_that_was_broken_off_can_be_begun_again() -> None:
    class Break(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            if batch_idx == 2:
                raise ConnectionError("the machine went away")

    module = Digits()
    with pytest.raises(ConnectionError):
        fit(module, [DynamicalLowRank(0.6, local_steps=2), Break()])
    schedule = DynamicalLowRank(0.6, local_steps=2)
    fit(module, [schedule])
    assert schedule.done
    size = deployed_size(module)
    assert 0.6 <= 1 - (size.factors + size.rest) / size.dense <= 0.62


def test_a_tolerance_bounds_every_truncation() -> None:
    errors: list[float] = []

    class Compare(DynamicalLowRank):
        def _truncate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            before = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
            super()._truncate(trainer, pl_module)
            for name, layer in self.layers.items():
                errors.append(float((layer.weight.detach() - before[name]).norm() / before[name].norm()))

    fit(Digits(), [Compare(tolerance=0.3, local_steps=3)])
    assert len(errors) >= 3
    assert max(errors) <= 0.3
    assert max(errors) > 1e-3


@given(st.integers(1, 8), st.integers(0, 99))
def test_the_spread_is_the_variance_of_the_squares_and_bounds_the_condition_number(r: int, seed: int) -> None:
    s = torch.randn(r, r, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(s)
    found = spread(s)
    torch.testing.assert_close(found**2 / r, values.square().var(unbiased=False), rtol=1e-6, atol=1e-9)
    assert values[0] / values[-1] <= torch.exp(found / (2**0.5 * values[-1] ** 2)) * (1 + 1e-9)


def test_the_penalty_draws_singular_values_together(train_tiny) -> None:
    """The largest condition number would tell of the one smallest singular value of all layers, which is chance."""

    def uneven(run: Run) -> float:
        """The mean relative deviation of squared singular values, over the layers."""
        cores = [layer.S.detach() for _, layer in factorized_layers(run.trained_model())]
        return sum(float(spread(s) * len(s) ** 0.5 / s.square().sum()) for s in cores) / len(cores)

    plain = train_tiny(RankAdaptive(), "plain", epochs=3, compression=0.6)
    robust = train_tiny(RobustRankAdaptive(beta=0.2), "robust", epochs=3, compression=0.6)
    assert uneven(robust) < 0.9 * uneven(plain)


@pytest.mark.parametrize("options", [{"tolerance": 1.5}, {"local_steps": 0}, {"start": 0.5}, {"beta": -1.0}])
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(UserError):
        RobustRankAdaptive(**options)
