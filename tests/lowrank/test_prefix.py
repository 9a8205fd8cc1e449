"""The leading components of a layer are a layer of their own: applied, cut, projected."""

import pytest
import torch
from torch import nn

from zoo.constraints import LowRankConstraint, OrderedOrthonormal, OrderedSpectrum
from zoo.linalg import random_stiefel
from zoo.lowrank.factorize import factorize
from zoo.lowrank.layers import Factorized, FactorizedConv2d, FactorizedLinear, factorized_layers
from zoo.lowrank.prefix import cut_, prefix, prefixes_applied
from zoo.lowrank.tucker import TuckerConv2d

RANKS = {"0": 8, "2": 12, "5": 6}


def network(convolution: str) -> nn.Module:
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    return factorize(layers, RANKS, convolution=convolution)


def layer(kind: str) -> Factorized:
    if kind == "linear":
        return FactorizedLinear(nn.Linear(40, 30), 12, "random")
    convolution = nn.Conv2d(20, 30, 3)
    return FactorizedConv2d(convolution, 12, "random") if kind == "matrix" else TuckerConv2d(convolution, 12, "random")


kinds = pytest.mark.parametrize("kind", ["linear", "matrix", "tucker"])
forms = pytest.mark.parametrize("convolution", ["matrix", "tucker"])


@forms
def test_applied_prefixes_are_what_the_cut_leaves(convolution: str) -> None:
    model, x = network(convolution), torch.randn(4, 3, 8, 8)
    smaller = {"0": 3, "2": 5}
    with prefixes_applied(model, smaller):
        applied = model(x)
    whole = model(x)
    cut_(model, smaller)
    assert {name: found.rank for name, found in factorized_layers(model)} == RANKS | smaller
    torch.testing.assert_close(model(x), applied)
    assert not torch.allclose(whole, applied)


@forms
def test_gradients_of_a_prefix_go_to_the_leading_components_alone(convolution: str) -> None:
    model = network(convolution)
    with prefixes_applied(model, {"2": 5}):
        model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    found = dict(factorized_layers(model))["2"]
    r, s = found.ranks_at(5)
    assert found.U.grad[:, :r].abs().amin(0).min() > 0
    assert not found.U.grad[:, r:].any()
    assert not found.V.grad[:, s:].any()
    assert not found.S.grad[r:].any()
    assert not found.S.grad[:, s:].any()


def test_prefixes_within_prefixes_return_to_the_outer_ones() -> None:
    model, x = network("matrix"), torch.randn(2, 3, 8, 8)
    with prefixes_applied(model, {"2": 5}):
        outer = model(x)
        with prefixes_applied(model, {"2": 2}):
            assert not torch.allclose(model(x), outer)
        assert torch.equal(model(x), outer)


@kinds
def test_a_rank_that_the_layer_does_not_have_is_refused(kind: str) -> None:
    for rank in (0, 13):
        with pytest.raises(ValueError, match=f"prefix {rank} of a layer of rank 12"):
            prefix(layer(kind), rank)


@kinds
def test_a_prefix_is_the_projection_of_the_weight_on_leading_columns(kind: str) -> None:
    found = layer(kind)
    with torch.no_grad():
        found.S.copy_(torch.randn_like(found.S))
    OrderedSpectrum(9.0).project_(found)
    for rank in (1, 5, 12):
        r, s = found.ranks_at(rank)
        u, v = found.U[:, :r], found.V[:, :s]
        projected = torch.einsum("ij,j...->i...", u @ u.T, found.weight)
        if kind == "tucker":
            projected = torch.einsum("ic...,cd->id...", projected, v @ v.T)
        torch.testing.assert_close(prefix(found, rank).weight, projected)


@kinds
def test_ordering_changes_no_weight(kind: str) -> None:
    found = layer(kind)
    with torch.no_grad():
        found.S.copy_(torch.randn_like(found.S))
    LowRankConstraint(1.0).project_(found)
    before, spans = found.weight, found.U.clone()
    assert OrderedSpectrum(1.0).in_set(found) == (kind == "tucker")
    OrderedSpectrum(1.0).project_if_outside_(found)
    assert OrderedSpectrum(1.0).in_set(found)
    torch.testing.assert_close(found.weight, before, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.U, spans)


@pytest.mark.parametrize("kind", ["linear", "matrix"])
@pytest.mark.parametrize("tau", [0.0, 0.1, 1.0])
def test_every_prefix_of_a_matrix_is_as_well_conditioned_as_the_whole(kind: str, tau: float) -> None:
    found = layer(kind)
    with torch.no_grad():
        found.S.copy_(torch.randn_like(found.S))
    OrderedSpectrum(tau).project_(found)
    whole = found.condition_number()
    assert whole <= (1 + tau) * (1 + 1e-5)
    assert max(prefix(found, k).condition_number() for k in range(1, 13)) <= whole * (1 + 1e-5)


def test_a_core_is_clamped_at_the_named_prefixes_and_exactly_as_a_whole() -> None:
    found, constraint = layer("tucker"), OrderedSpectrum(1.0)
    with torch.no_grad():
        found.S.copy_(torch.randn_like(found.S))
    constraint.prefixes = {found: [3, 6]}
    for _ in range(10):
        constraint.project_(found)
    assert found.condition_number() <= 2 * (1 + 1e-5)
    assert max(prefix(found, k).condition_number() for k in (3, 6)) < 2.1


@kinds
def test_a_step_may_exchange_components_and_keeps_the_prefixes_of_the_new_weight(kind: str) -> None:
    """A small step of a prefix's loss, retracted, changes the prefix as the step of its plain factors does."""
    torch.manual_seed(1)
    found, constraint = layer(kind).double(), OrderedOrthonormal()
    with torch.no_grad():
        found.S.copy_(torch.randn_like(found.S))
    OrderedSpectrum(1.0).project_(found)
    target = torch.randn_like(prefix(found, 4).weight)
    before = prefix(found, 4).weight
    (before * target).sum().backward()
    constraint.gradient_flow_(found)
    assert (found.U.T @ found.U.grad).abs().max() > 1e-6  # columns rotate within their span
    rate = 1e-5
    with torch.no_grad():
        for factor in (found.U, found.S, found.V):
            factor.sub_(rate * factor.grad)
        stepped = prefix(found, 4).weight
        constraint.project_(found)
        OrderedSpectrum(1.0).project_if_outside_(found)
    retracted = prefix(found, 4).weight
    assert (stepped - before).norm() > 1e-2 * rate
    assert (retracted - stepped).norm() < 1e-2 * (stepped - before).norm()


def test_retraction_keeps_the_span_of_every_number_of_leading_columns() -> None:
    found = layer("linear")
    with torch.no_grad():
        found.U.copy_(random_stiefel(30, 12) + 0.05 * torch.randn(30, 12))
    moved = found.U.clone()
    OrderedOrthonormal().project_(found)
    for k in (1, 4, 12):
        inside = found.U[:, :k] @ (found.U[:, :k].T @ moved[:, :k])
        torch.testing.assert_close(inside, moved[:, :k], atol=1e-5, rtol=1e-4)
