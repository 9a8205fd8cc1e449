"""Scores are what the loss loses; ranks go where the parameters are."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.linalg.basis import slicing
from zoo.lowrank.allocation import cut_on_schedule, cut_to_size, cut_to_tolerance, cut_towards, share_scores
from zoo.lowrank.factorize import Layer
from zoo.lowrank.layers import FactorizedLinear
from zoo.lowrank.rank_change import change_basis_, diagonalize_
from zoo.lowrank.saliency import SALIENCIES


def layer_of(n: int = 10, m: int = 12, r: int = 5) -> FactorizedLinear:
    layer = FactorizedLinear(nn.Linear(m, n, bias=False), r).double()
    with torch.no_grad():
        layer.S.add_(0.1 * torch.randn(r, r))
    diagonalize_(layer)
    return layer


def gathered(name: str, layer: FactorizedLinear, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    sums = {"steps": torch.zeros((), dtype=torch.float64)}
    for x, y in zip(inputs.split(4), targets.split(4), strict=True):
        layer.zero_grad()
        (layer(x) - y).square().sum().backward()
        for key, value in ({"steps": torch.ones(())} | SALIENCIES[name].observe(layer)).items():
            sums[key] = sums.get(key, 0) + value
    return sums


def without(layer: FactorizedLinear, j: int) -> FactorizedLinear:
    other = FactorizedLinear(nn.Linear(12, 10, bias=False), layer.rank).double()
    other.load_state_dict(layer.state_dict())
    change_basis_(other, slicing(layer.S, torch.tensor([i for i in range(layer.rank) if i != j])))
    return other


def test_the_spectrum_is_the_share_of_the_squared_norm() -> None:
    layer = layer_of()
    scores = SALIENCIES["spectrum"].scores(layer, {})
    norm = layer.weight.square().sum()
    for j in range(5):
        lost = (layer.weight - without(layer, j).weight).square().sum() / norm
        torch.testing.assert_close(scores[j], lost)


def test_the_gradient_score_is_the_squared_change_of_a_linear_loss() -> None:
    layer, direction = layer_of(), torch.randn(10, 12, dtype=torch.float64)
    (layer.weight * direction).sum().backward()
    saliency = SALIENCIES["gradient"]
    scores = saliency.scores(layer, {"steps": torch.ones(())} | saliency.observe(layer))
    for j in range(5):
        change = ((layer.weight - without(layer, j).weight) * direction).sum()
        torch.testing.assert_close(scores[j], change.square())


@pytest.mark.parametrize("side", ["U", "V"])
def test_the_second_order_cost_and_recovery_are_the_optimum_of_the_quadratic_model(side: str) -> None:
    """Least squares: min 1/2 tr(D H D^T) with D[:, M] = -X[:, M], found by another way than the formula."""
    torch.manual_seed(1)
    layer = layer_of()
    inputs, targets = torch.randn(64, 12, dtype=torch.float64), torch.randn(64, 10, dtype=torch.float64)
    saliency, sums = SALIENCIES["second_order"], gathered("second_order", layer, inputs, targets)
    key = {"U": "left", "V": "right"}[side]
    x = getattr(layer, side).detach().clone()
    curvature = sums[key] / sums["steps"]
    curvature = curvature + 1e-3 * curvature.diagonal().mean() * torch.eye(5)
    root = torch.linalg.cholesky(curvature).T  # tr(D H D^T) = ||D root^T||^2

    def best(cut: list[int]) -> tuple[Tensor, Tensor]:
        kept = [j for j in range(5) if j not in cut]
        moved = torch.linalg.lstsq(root[:, kept], root[:, cut] @ x[:, cut].T).solution.T
        residual = moved @ root[:, kept].T - x[:, cut] @ root[:, cut].T
        return moved, residual.square().sum() / 2

    other = {"left": "right", "right": "left"}[key]
    only = sums | {other: torch.full((5, 5), 0.0, dtype=torch.float64) + torch.eye(5) * 1e-30}
    scores = saliency.scores(layer, only)
    torch.testing.assert_close(scores, torch.stack([best([j])[1] for j in range(5)]).float(), rtol=1e-4, atol=1e-12)
    saliency.recover_(layer, sums, (torch.tensor([0, 2, 4]),) * 2)
    moved = getattr(layer, side).detach()[:, [0, 2, 4]] - x[:, [0, 2, 4]]
    torch.testing.assert_close(2 * moved, best([1, 3])[0], rtol=1e-5, atol=1e-9)


def test_the_recovery_lowers_the_loss_of_a_trained_layer() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(512, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64)
    targets = inputs @ torch.randn(12, 10, dtype=torch.float64) + 0.1 * torch.randn(512, 10, dtype=torch.float64)
    layer = layer_of(r=8)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(500):
        optimizer.zero_grad()
        (layer(inputs) - targets).square().mean().backward()
        optimizer.step()
    diagonalize_(layer)
    sums = gathered("second_order", layer, inputs, targets)
    saliency = SALIENCIES["second_order"]
    kept = saliency.kept(layer, sums, 5)
    losses = {}
    for recover in (False, True):
        cut = FactorizedLinear(nn.Linear(12, 10, bias=False), 8).double()
        cut.load_state_dict(layer.state_dict())
        if recover:
            saliency.recover_(cut, sums, kept)
        change_basis_(cut, slicing(cut.S, *kept))
        losses[recover] = (cut(inputs) - targets).square().mean().item()
    assert losses[True] < losses[False]


LAYERS = [
    Layer("a", "Linear", (64, 64), ""),
    Layer("b", "Conv2d", (128, 32, 3, 3), ""),
    Layer("c", "Linear", (96, 80), ""),
]
RANKS = {"a": 24, "b": 80, "c": 32}


def held(ranks: dict[str, int]) -> int:
    return sum(layer.factorized_size(ranks[layer.name]) for layer in LAYERS)


def scores_of(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(rank, generator=generator).sort(descending=True)[0] ** 3 for name, rank in RANKS.items()}


@pytest.mark.parametrize("share", [0.95, 0.7, 0.4, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_the_budget_is_met_and_not_undershot(share: float, seed: int) -> None:
    size, total = share * held(RANKS), 3 * held(RANKS)
    ranks = cut_to_size(LAYERS, RANKS, scores_of(seed), size, total)
    assert size - 0.015 * total <= held(ranks) <= size
    assert all(1 <= ranks[name] <= RANKS[name] for name in RANKS)
    above = cut_towards(LAYERS, RANKS, scores_of(seed), size)
    assert held(above) >= size
    assert all(rank == RANKS[name] or rank % 16 == 0 or rank in (1, 2, 4, 8) for name, rank in above.items())


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_many_cuts_lose_no_more_than_one(share: float, decay: float) -> None:
    """A cut that filled up its size with whatever small step fits would empty the small layers."""
    widths = {"a": 64, "b": 128, "c": 256, "d": 512}
    layers = [Layer(f"{x}{i}", "Conv2d", (n, n, 3, 3), "") for x, n in widths.items() for i in range(4)]
    start = {layer.name: layer.n // 4 * 3 for layer in layers}
    generator = torch.Generator().manual_seed(0)
    spectra = {}
    for layer in layers:
        noise = 0.75 + 0.5 * torch.rand(layer.n, generator=generator)
        energy = (noise * torch.exp(-decay * torch.arange(layer.n) / layer.n)).sort(descending=True).values
        spectra[layer.name] = energy / energy.sum()

    def cut(ranks: dict[str, int], progress: float) -> dict[str, int]:
        scores = {name: spectra[name][:rank] for name, rank in ranks.items()}
        return cut_on_schedule(layers, ranks, scores, size, share * size, progress, 2 * size)

    size = sum(layer.factorized_size(start[layer.name]) for layer in layers)
    ranks, once = start, cut(start, 1.0)
    for k in range(1, 9):
        ranks = cut(ranks, k / 8)
    lost = [sum(float(spectra[x][r : start[x]].sum()) for x, r in found.items()) for found in (ranks, once)]
    assert lost[0] <= 1.05 * lost[1]


def test_what_is_cut_is_the_least_salient_per_parameter() -> None:
    """Against all choices: no other one that is as small loses less (equal steps, so greedy is optimal)."""
    layers = [Layer(name, "Linear", (64, 64), "") for name in "abc"]
    ranks, generator = dict.fromkeys("abc", 28), torch.Generator().manual_seed(0)
    drawn = {name: torch.rand(28, generator=generator, dtype=torch.float64) * 3**k for k, name in enumerate("abc")}
    scores = {name: values.sort(descending=True)[0] for name, values in drawn.items()}
    size = 128 * 48.0

    def lost(chosen: dict[str, int]) -> float:
        return sum(scores[name].sort().values[: 28 - rank].sum().item() for name, rank in chosen.items())

    found = cut_towards(layers, ranks, scores, size, block=1)
    every = itertools.product(range(1, 29), repeat=3)
    fits = [dict(zip("abc", choice, strict=True)) for choice in every if 128 * sum(choice) <= size]
    assert lost(found) == pytest.approx(min(lost(choice) for choice in fits))


@pytest.mark.parametrize("size", [0.45, 0.3, 0.15])
def test_offset_shares_follow_the_ratio_formula_at_the_same_size(size: float) -> None:
    """clip(level - offset, 0, 0.95) of each layer's weights is removed, with one level for all: found by bisection."""
    layers = [Layer(name, "Linear", (400, 400), "") for name in "abc"]
    ranks, offsets = dict.fromkeys("abc", 180), {"a": -0.3, "b": 0.05, "c": 0.25}

    def held(ranks: dict[str, float]) -> float:
        return sum(800 * rank for rank in ranks.values())

    def at(level: float) -> dict[str, float]:
        return {name: min(180.0, 200 * (1 - min(max(level - offsets[name], 0.0), 0.95))) for name in offsets}

    wanted = size * held(dict.fromkeys("abc", 200))
    low, high = 0.0, 2.0
    for _ in range(50):
        low, high = ((low + high) / 2, high) if held(at((low + high) / 2)) > wanted else (low, (low + high) / 2)
    scores = {x.name: share_scores(x, 180, offsets[x.name]) for x in layers}
    found = cut_towards(layers, ranks, scores, wanted, block=1)
    assert wanted <= held(found) < wanted + 3 * 800
    assert all(abs(found[name] - rank) <= 1 for name, rank in at(high).items())


def test_an_impossible_budget_is_refused() -> None:
    with pytest.raises(UserError, match="smaller compression"):
        cut_to_size(LAYERS, RANKS, scores_of(0), 100, 10**6)


def test_a_tolerance_bounds_the_error_of_each_layer() -> None:
    layer = FactorizedLinear(nn.Linear(200, 300, bias=False), 100).double()
    diagonalize_(layer)
    shape = Layer("x", "Linear", (300, 200), "")
    scores = SALIENCIES["spectrum"].scores(layer, {})
    rank = cut_to_tolerance(shape, 100, scores, 0.6)
    assert rank < 100
    assert rank % 16 == 0
    weight = layer.weight.detach().clone()
    change_basis_(layer, slicing(layer.S, torch.arange(rank)))
    assert torch.linalg.matrix_norm(weight - layer.weight) <= 0.6 * torch.linalg.matrix_norm(weight)
    assert cut_to_tolerance(shape, 100, scores, 1e-3) == 100
