"""Tucker-2 convolutions: what is true of U S V^T is true of them, along each of the core's first two axes."""

import math
from collections.abc import Callable
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from constrained_module import Watch
from hypothesis import given
from hypothesis import strategies as st
from rank_training import Digits, fit
from replay_stand_ins import computed_again
from torch import nn

from zoo.callbacks import DynamicalLowRank, OrthonormalRetraction, RankPruning, SpectrumClamp
from zoo.export.forms import DENSE, candidates, geometry, trained_form, write_as
from zoo.linalg import orthonormality_error
from zoo.linalg.basis import singular_basis
from zoo.linalg.mode_products import multiply_modes, unfoldings
from zoo.lowrank.allocation import deployed_size
from zoo.lowrank.chain import FactorChain
from zoo.lowrank.factorize import factorize, fold, in_form, layers_of, weight_layers
from zoo.lowrank.layers import factorized_layers
from zoo.lowrank.rank_change import augment_, diagonalize_, truncate_
from zoo.lowrank.saliency import SALIENCIES
from zoo.lowrank.tucker import TuckerConv2d, has_tucker_form, inner_rank, tucker_size
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.methods.robust_rank_adaptive import spread
from zoo.runs.run import Run
from zoo.runtime.cuda_graph import Replays
from zoo.training.awp import WeightPerturbation

GEOMETRIES = [{"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"dilation": 2, "padding": 2}, {"stride": (1, 2)}]


def uneven(conv: nn.Conv2d, rank: int, seed: int = 0) -> TuckerConv2d:
    """A layer whose factors are not orthonormal."""
    layer = TuckerConv2d(conv, rank)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for factor in (layer.U, layer.S, layer.V):
            factor.normal_(generator=g)
    return layer


class Convolutions(Digits):
    """The small network of the rank tests, its factorized convolutions in Tucker-2 form."""

    def __init__(self, optimizer: str = "sgd") -> None:
        super().__init__(optimizer)
        self.net[2] = TuckerConv2d(nn.Conv2d(32, 48, 3, padding=1), 24)
        self.net[4] = TuckerConv2d(nn.Conv2d(48, 64, 3, stride=2), 32, "random")


@pytest.mark.parametrize("options", GEOMETRIES)
def test_at_full_rank_it_is_the_convolution(options: dict) -> None:
    conv = nn.Conv2d(6, 10, 3, **options)
    layer, x = TuckerConv2d(conv, 10), torch.randn(2, 6, 9, 9)
    torch.testing.assert_close(layer(x), conv(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.weight, conv.weight, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("options", GEOMETRIES)
def test_the_deployed_form_answers_alike_and_says_what_it_stands_for(options: dict) -> None:
    conv = nn.Conv2d(32, 24, 3, **options)
    layer, x = TuckerConv2d(conv, 5), torch.randn(2, 32, 9, 9)
    chain = layer.fold()
    assert isinstance(chain, FactorChain)
    assert len(chain) == 3
    torch.testing.assert_close(chain(x), layer(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(chain.weight, layer.weight, atol=1e-6, rtol=1e-4)
    assert sum(p.numel() for p in chain.parameters()) == layer.deployed_weights + 24
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(chain, name) == getattr(conv, name)


def test_a_form_that_does_not_pay_folds_to_one_convolution() -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1)
    layer, x = TuckerConv2d(conv, 16), torch.randn(1, 16, 5, 5)
    assert isinstance(layer.fold(), nn.Conv2d)
    torch.testing.assert_close(layer.fold()(x), conv(x), atol=1e-5, rtol=1e-4)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 9), st.integers(0, 99))
def test_its_singular_values_are_those_of_its_weight_as_a_matrix(n: int, c: int, rank: int, seed: int) -> None:
    layer = uneven(nn.Conv2d(c, n, 3), min(rank, n), seed)
    expected = torch.linalg.svdvals(layer.weight.detach().double().flatten(1))[: layer.rank].float()
    torch.testing.assert_close(layer.singular_values(), expected, rtol=1e-3, atol=1e-3)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 9), st.integers(0, 99))
def test_a_dense_weight_is_fitted_within_the_bound_of_its_unfoldings(n: int, c: int, rank: int, seed: int) -> None:
    """The truncated higher-order SVD is within both sides' tails (De Lathauwer et al. 2000, property 10)."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(c, n, 3)
    layer = TuckerConv2d(conv, min(rank, n))
    tails = [
        torch.linalg.svdvals(matrix)[kept:].square().sum()
        for matrix, kept in zip(unfoldings(conv.weight.detach()), layer.S.shape[:2], strict=False)
    ]
    assert (layer.weight - conv.weight).square().sum() <= sum(tails) * (1 + 1e-4) + 1e-8
    assert max(orthonormality_error(x.detach()) for x in (layer.U, layer.V)) <= 1e-5


def test_a_weight_of_that_rank_is_fitted_exactly() -> None:
    conv = nn.Conv2d(12, 8, 3)
    conv.weight.data = uneven(conv, 4).weight.detach()
    torch.testing.assert_close(TuckerConv2d(conv, 4).weight, conv.weight, atol=1e-4, rtol=1e-4)


def test_random_initialization_is_well_conditioned_with_the_same_norm() -> None:
    conv = nn.Conv2d(16, 32, 3)
    layer = TuckerConv2d(conv, 6, "random")
    assert max(orthonormality_error(x) for x in (layer.U, layer.V)) <= 1e-5
    torch.testing.assert_close(layer.weight.norm(), conv.weight.norm())
    assert layer.condition_number() == pytest.approx(1, abs=1e-4)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_the_singular_basis_keeps_the_weight_and_bounds_every_cut(n: int, c: int, rank: int, seed: int) -> None:
    layer = uneven(nn.Conv2d(c, n, 3), min(rank, n), seed).double()
    weight = layer.weight.detach().clone()
    diagonalize_(layer)
    torch.testing.assert_close(layer.weight, weight, atol=1e-6, rtol=1e-6)
    assert max(orthonormality_error(x.detach()) for x in (layer.U, layer.V)) <= 1e-6
    for matrix in unfoldings(layer.S.detach()):
        gram = matrix @ matrix.T
        assert (gram - torch.diag(gram.diagonal())).abs().max() <= 1e-6 * gram.diagonal().max()
    left, right = layer.energies()
    assert all((energies.diff() <= 1e-9 * energies[0]).all() for energies in (left, right))
    scores = SALIENCIES["spectrum"].scores(layer, {})
    assert float(scores.sum()) == pytest.approx(2)
    r, s = layer.ranks_at(max(1, layer.rank // 2))
    truncate_(layer, r)
    assert layer.S.shape[:2] == (r, s)
    lost = (layer.weight - weight).square().sum()
    assert lost <= (left[r:].sum() + right[s:].sum()) * (1 + 1e-6) + 1e-9 * left[0]


def test_gradients_follow_the_basis_by_the_chain_rule() -> None:
    layer = uneven(nn.Conv2d(5, 7, 3), 4).double()
    factors = [x.detach() for x in (layer.U, layer.S, layer.V)]
    change, target = singular_basis(*factors), torch.randn(7, 5, 3, 3, dtype=torch.float64)

    def gradients(*x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = tuple(y.clone().requires_grad_() for y in x)
        return torch.autograd.grad((multiply_modes(*x) * target).sum(), x)

    new = gradients(*(change.factor(role, x) for role, x in zip("USV", factors, strict=True)))
    for role, before, after in zip("USV", gradients(*factors), new, strict=True):
        torch.testing.assert_close(change.gradient(role, before), after, atol=1e-6, rtol=1e-6)


def test_augmentation_keeps_the_weight_and_holds_the_gradient() -> None:
    layer = TuckerConv2d(nn.Conv2d(24, 16, 3), 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0, momentum=0.9)
    layer(torch.randn(8, 24, 5, 5)).square().sum().backward()
    gradients = layer.U.grad.clone(), layer.V.grad.clone()
    optimizer.step()
    weight, momentum = layer.weight.detach().clone(), optimizer.state[layer.S]["momentum_buffer"].clone()
    augment_(layer, *gradients, [optimizer])
    assert layer.S.shape[:2] == layer.ranks_at(8) == (8, 12)
    torch.testing.assert_close(layer.weight, weight, atol=1e-6, rtol=1e-5)
    for basis, gradient in zip((layer.U.detach(), layer.V.detach()), gradients, strict=True):
        assert orthonormality_error(basis) <= 1e-5
        torch.testing.assert_close(basis @ (basis.T @ gradient), gradient, atol=1e-4, rtol=1e-4)
    assert torch.equal(optimizer.state[layer.S]["momentum_buffer"][:4, :6], momentum)
    augment_(layer, torch.randn(16, 8), torch.randn(24, 12))
    assert (layer.rank, layer.V.shape[1]) == (16, 24)


def test_a_perturbation_moves_the_product_by_its_radius() -> None:
    layer = uneven(nn.Conv2d(8, 12, 3), 5)
    with torch.no_grad():
        layer.S.mul_(0.01)
    x, weight = torch.randn(4, 8, 7, 7), layer.weight.detach().clone()
    move = WeightPerturbation(layer, 0.01)
    move.perturb(lambda: layer(x).square().mean())
    moved = torch.linalg.vector_norm(layer.weight.detach() - weight) / torch.linalg.vector_norm(weight)
    assert float(moved) == pytest.approx(0.01, rel=1e-3)
    move.undo()
    assert torch.equal(layer.weight, weight)


@given(st.integers(1, 6), st.integers(0, 99))
def test_the_spread_of_a_core_is_that_of_its_singular_values(r: int, seed: int) -> None:
    core = torch.randn(r, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    squares = torch.linalg.svdvals(core.flatten(1)).square()
    torch.testing.assert_close(spread(core) ** 2 / r, squares.var(unbiased=False), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", GEOMETRIES)
def test_every_form_that_it_may_be_exported_in_computes_the_same(options: dict) -> None:
    layer, x = uneven(nn.Conv2d(40, 48, 3, **options), 10), torch.randn(2, 40, 9, 9)
    chain = layer.fold()
    assert isinstance(chain, FactorChain)
    problem = geometry(chain, (1, 40, 9, 9))
    assert problem is not None
    forms = candidates(chain, problem, 16)
    assert forms[0] == trained_form(chain)
    assert forms[-1] == DENSE
    assert {"kxk to 1x1", "1x1 to kxk", "1x1 to kxk to 1x1", "dense"} <= {form.split for form in forms}
    scale = layer(x).abs().max()
    for form in forms:
        written = write_as(chain, form)
        torch.testing.assert_close(written(x) / scale, layer(x) / scale, atol=1e-5, rtol=1e-4)
        held = sum(p.numel() for p in written.parameters()) - 48
        assert held == problem.weights(form)


@given(st.sampled_from([(64, 32, 3, 3), (48, 96, 3, 3), (16, 16, 5, 5)]), st.integers(1, 16))
def test_the_budget_counts_what_is_deployed(shape: tuple[int, ...], rank: int) -> None:
    conv = nn.Conv2d(shape[1], shape[0], shape[2:])
    (layer,) = in_form(weight_layers(nn.Sequential(conv)), "tucker")
    model = factorize(nn.Sequential(conv), {"0": rank}, convolution="tucker")
    assert isinstance(model[0], TuckerConv2d)
    assert layer.factorized_size(rank) == model[0].deployed_weights == tucker_size(shape, rank)
    assert [x.factorized_size(rank) for x in layers_of({"0": model[0]})] == [layer.factorized_size(rank)]
    if model[0].pays:
        assert deployed_size(model).factors == sum(p.numel() for p in fold(model).parameters()) - shape[0]


@pytest.mark.parametrize("shape", [(64, 3, 3, 3), (32, 16, 1, 1), (10, 20)])
def test_what_has_no_tucker_form_is_factorized_as_a_matrix(shape: tuple[int, ...]) -> None:
    assert not has_tucker_form(shape)


def test_the_inner_rank_never_falls_below_what_the_outer_one_needs() -> None:
    for n, c in ((64, 8), (512, 64), (9, 1), (16, 48)):
        for rank in range(1, n + 1):
            inner = inner_rank(rank, n, c)
            assert 1 <= inner <= c
            assert rank <= inner * 9
            assert math.isclose(inner, rank * c / n, abs_tol=1)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_ends_at_its_budget(optimizer: str) -> None:
    module = Convolutions(optimizer)
    dense = deployed_size(module).dense
    fit(module, [DynamicalLowRank(0.6, local_steps=3)])
    assert 0.6 <= 1 - sum(p.numel() for p in fold(module).parameters()) / dense <= 0.62
    layers = [layer for layer in module.net if isinstance(layer, TuckerConv2d)]
    assert all(layer.S.shape[:2] == layer.ranks_at(layer.rank) for layer in layers)
    assert max(orthonormality_error(x.detach()) for layer in layers for x in (layer.U, layer.V)) <= 1e-5


def test_a_tolerance_bounds_every_truncation() -> None:
    errors: list[float] = []

    class Compare(DynamicalLowRank):
        def _truncate(self, *args: object) -> None:
            before = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
            super()._truncate(*args)
            for name, layer in self.layers.items():
                errors.append(float((layer.weight.detach() - before[name]).norm() / before[name].norm()))

    fit(Convolutions(), [Compare(tolerance=0.3, local_steps=3)])
    assert 1e-3 < max(errors) <= 0.3


@pytest.mark.parametrize("saliency", ["spectrum", "gradient", "second_order"])
@pytest.mark.parametrize("goal", [{"compression": 0.8}, {"tolerance": 0.5}])
def test_ranks_are_pruned_by_any_saliency(saliency: str, goal: dict) -> None:
    module = Convolutions("adam")
    size = deployed_size(module)
    fit(module, [RankPruning(**goal, saliency=saliency, cuts=2, window=2)])
    layers = [layer for layer in module.net if isinstance(layer, TuckerConv2d)]
    if "compression" in goal:
        assert 0.8 <= 1 - sum(p.numel() for p in fold(module).parameters()) / size.dense <= 0.82
    else:
        assert deployed_size(module).factors < size.factors
    assert all(layer.S.shape[:2] == layer.ranks_at(layer.rank) for layer in layers)
    state = module.trainer.optimizers[0].state
    assert all(state[p]["exp_avg"].shape == p.shape for layer in layers for p in layer.parameters())


def test_a_gradient_score_is_the_squared_change_of_a_linear_loss_on_each_side() -> None:
    layer = uneven(nn.Conv2d(6, 8, 3), 5).double()
    diagonalize_(layer)
    direction, saliency = torch.randn(8, 6, 3, 3, dtype=torch.float64), SALIENCIES["gradient"]
    (layer.weight * direction).sum().backward()
    left, right = saliency.columns(layer, {"steps": torch.ones(())} | saliency.observe(layer))
    for axis, scores in enumerate((left, right)):
        for j in range(len(scores)):
            core = layer.S.detach().clone()
            core.select(axis, j).zero_()
            change = ((layer.weight - multiply_modes(layer.U, core, layer.V)) * direction).sum()
            torch.testing.assert_close(scores[j], change.square())


class Bounds(Watch):
    """After each optimizer step: how orthonormal U and V are, and each weight's condition number as a matrix."""

    def measure(self, model: nn.Module) -> None:
        for _, layer in factorized_layers(model):
            self.orthonormality.append(max(float(orthonormality_error(x.detach())) for x in (layer.U, layer.V)))
            values = torch.linalg.svdvals(layer.weight.detach().double().flatten(1))[: layer.rank]
            self.condition.append(float(values.max() / values.min()))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_every_step_ends_orthonormal_and_with_the_weights_bounded(
    tau: float, optimizer: str, memory_format: torch.memory_format
) -> None:
    bounds, module = Bounds(), Convolutions(optimizer).to(memory_format=memory_format)
    fit(module, [OrthonormalRetraction(), SpectrumClamp(tau), bounds])
    assert len(bounds.condition) == 32 * 3
    assert max(bounds.orthonormality) <= 1e-5
    assert max(bounds.condition) <= 1 + tau + 2e-5


def test_replayed_constraints_are_the_constraints(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where both are captured; there the memory format of what is captured is its own."""
    monkeypatch.setattr("zoo.callbacks._step_hook.Replays", partial(Replays, computed_again))
    weights = []
    for captured in (None, True):
        torch.manual_seed(0)
        module = Convolutions().to(memory_format=torch.channels_last)
        module.captured = captured
        fit(module, [OrthonormalRetraction(), SpectrumClamp(0.1)], max_steps=4)
        weights.append([p.detach() for p in module.parameters()])
    torch.testing.assert_close(weights[1], weights[0], atol=1e-5, rtol=1e-4)


def test_the_retraction_keeps_the_weight() -> None:
    layer = uneven(nn.Conv2d(24, 32, 3), 10)
    weight = layer.weight.detach().clone()
    callback = OrthonormalRetraction()
    callback.layers = [layer, uneven(nn.Conv2d(24, 32, 3), 10, seed=1)]
    callback.project_(None)
    torch.testing.assert_close(layer.weight, weight, atol=1e-3, rtol=1e-4)
    assert max(float(orthonormality_error(x.detach())) for x in (layer.U, layer.V)) <= 1e-5


@pytest.mark.parametrize("smallest", [0.5, 1e-3])
def test_the_clamp_clips_the_singular_values_of_the_weight_as_a_matrix(smallest: float) -> None:
    layer = TuckerConv2d(nn.Conv2d(24, 32, 3), 10, "random").double()
    with torch.no_grad():
        layer.U.copy_(torch.linalg.qr(layer.U)[0])  # they were orthonormal to fp32
        layer.V.copy_(torch.linalg.qr(layer.V)[0])
        layer.S.mul_(torch.linspace(smallest, 2, 10, dtype=torch.float64)[:, None, None, None])
    left, values, right = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
    mean, k = values[:10].mean(), 1.1
    e = mean * (k - 1) / (k + 1)
    expected = left[:, :10] @ torch.diag(values[:10].clamp(mean - e, mean + e)) @ right[:10]
    clamp = SpectrumClamp(0.1)
    clamp.layers = [layer]
    clamp.project_(torch.optim.SGD(layer.parameters()))
    torch.testing.assert_close(layer.weight.detach().flatten(1), expected, rtol=1e-5, atol=1e-6)
    assert clamp.condition_number == pytest.approx(1.1, abs=1e-4)


def test_the_steps_of_both_bases_are_tangent_and_scaled_by_their_own_columns() -> None:
    layer = TuckerConv2d(nn.Conv2d(24, 32, 3), 8)
    callback = OrthonormalRetraction()
    callback.layers = [layer]
    gradients = [torch.randn_like(layer.U), torch.randn_like(layer.V)]
    layer.U.grad, layer.V.grad = (g.clone() for g in gradients)
    trainer, module = pl.Trainer(logger=False, barebones=True), pl.LightningModule()
    callback.on_before_optimizer_step(trainer, module, torch.optim.SGD(layer.parameters(), lr=0.1))
    for x, gradient, rank in zip((layer.U, layer.V), gradients, layer.S.shape, strict=False):
        projected = gradient - x @ x.T @ gradient
        torch.testing.assert_close(x.grad, (projected * rank / layer.S.square().sum()).detach())


@pytest.mark.parametrize("options", [{"rank_budget": "adaptive"}, {"rank_budget": "fixed"}])
def test_a_training_of_robust_lowrank_ends_within_its_bound(train_tiny: Callable[..., Run], options: dict) -> None:
    run = train_tiny(RobustLowrank(convolution="tucker", **options), compression=0.6)
    convolutions = [x for x in run.card.layers if x.rank is not None and len(x.shape) == 4]
    assert max(x.condition_number for x in run.card.layers if x.condition_number is not None) <= 1.1
    assert any(x.shape[2] == 3 for x in convolutions)
    assert 0.6 <= 1 - run.card.params / run.card.dense_params <= 0.62
