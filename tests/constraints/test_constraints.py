"""The constraints in a plain training loop, and what their projections are."""

import math

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from constrained_module import UsersModule, Watch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from zoo.callbacks import OrthonormalRetraction, SpectrumClamp
from zoo.constraints import BoundedSpectrum, Constraint, LowRankConstraint, Orthonormal
from zoo.lowrank.layers import Factorized, FactorizedConv2d, FactorizedLinear, factorized_layers
from zoo.lowrank.tucker import TuckerConv2d

KINDS = ("linear", "convolution", "tucker")


def moved(kind: str, seed: int = 0, length: float = 0.05) -> Factorized:
    """Return a layer off every constraint, by a step of some length."""
    torch.manual_seed(seed)
    layers = {
        "linear": lambda: FactorizedLinear(nn.Linear(30, 20), 6),
        "convolution": lambda: FactorizedConv2d(nn.Conv2d(6, 12, 3), 5),
        "tucker": lambda: TuckerConv2d(nn.Conv2d(12, 16, 3), 6),
    }
    layer = layers[kind]()
    with torch.no_grad():
        for p in (layer.U, layer.V, layer.S):
            p.add_(length * torch.randn_like(p))
    return layer


def state(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize(("options", "clip"), [({}, None), ({"nesterov": True}, None), ({}, 0.1)])
def test_a_plain_loop_does_what_the_callbacks_do_bit_for_bit(options: dict, clip: float | None) -> None:
    data = TensorDataset(torch.rand(64, 1, 8, 8), torch.randint(0, 10, (64,)))
    batches = DataLoader(data, batch_size=8)
    torch.manual_seed(0)
    trained = UsersModule(**options)
    torch.manual_seed(0)
    plain = UsersModule(**options)
    pl.Trainer(
        max_steps=6, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[OrthonormalRetraction(), SpectrumClamp(0.1)], gradient_clip_val=clip,
    ).fit(trained, batches)  # fmt: skip

    constraint, optimizer = LowRankConstraint(tau=0.1), plain.configure_optimizers()
    constraint.project_if_outside_(plain)
    for (images, labels), _ in zip(batches, range(6), strict=False):
        optimizer.zero_grad()
        F.cross_entropy(plain.net(images), labels).backward()
        constraint.gradient_flow_(plain, optimizer, clipped=clip is not None)
        if clip is not None:
            nn.utils.clip_grad_norm_(plain.parameters(), clip)
        optimizer.step()
        constraint.project_(plain)
    assert constraint.in_set(plain)
    torch.testing.assert_close(state(plain), state(trained), atol=0, rtol=0)


def test_a_loop_without_momentum_needs_no_optimizer() -> None:
    found = []
    for known in (True, False):
        torch.manual_seed(0)
        module = UsersModule(momentum=0.0)
        F.cross_entropy(module.net(torch.rand(8, 1, 8, 8)), torch.arange(8)).backward()
        Orthonormal().gradient_flow_(module, module.configure_optimizers() if known else None)
        found.append([p.grad for p in module.parameters()])
    torch.testing.assert_close(found[0], found[1], atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_constraint_holds_after_the_projection(kind: str) -> None:
    watch, tau = Watch(), 0.2
    layers = nn.ModuleList(moved(kind, seed) for seed in range(3))
    constraint = LowRankConstraint(tau)
    assert not constraint.in_set(layers)
    constraint.project_(layers)
    assert constraint.in_set(layers)
    watch.measure(layers)
    assert watch.orthonormality[0] <= 1e-5
    assert watch.condition[0] <= (1 + tau) * (1 + 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1e-3, 0.05, 0.5])  # the last is too long for Cholesky-QR
def test_the_retraction_keeps_the_product_and_is_idempotent(kind: str, length: float) -> None:
    layer, constraint = moved(kind, length=length), Orthonormal()
    weight = layer.weight.detach().clone()
    constraint.project_(layer)
    torch.testing.assert_close(layer.weight.detach(), weight, atol=1e-4 * float(weight.abs().max()), rtol=0)
    once = state(layer)
    constraint.project_(layer)
    torch.testing.assert_close(state(layer), once, atol=1e-5, rtol=0)


@pytest.mark.parametrize("constraint", [Orthonormal(), BoundedSpectrum(0.2), LowRankConstraint(0.2)])
def test_what_lies_in_the_set_is_left_bit_for_bit(constraint: Constraint) -> None:
    layers = nn.ModuleList(moved(kind) for kind in KINDS)
    constraint.project_if_outside_(layers)
    assert constraint.in_set(layers)
    once = state(layers)
    constraint.project_if_outside_(layers)
    torch.testing.assert_close(state(layers), once, atol=0, rtol=0)


def core(values: list[float], seed: int) -> FactorizedLinear:
    """Return a layer in fp64 whose S has these singular values."""
    generator = torch.Generator().manual_seed(seed)
    r = len(values)
    layer = FactorizedLinear(nn.Linear(r, r), r).double()
    left, right = (torch.linalg.qr(torch.randn(r, r, generator=generator).double())[0] for _ in range(2))
    layer.S.data = left @ torch.diag(torch.tensor(values).double()) @ right.T
    return layer


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6), st.floats(0.01, 1), st.integers(0, 99))
def test_the_clamp_is_the_nearest_matrix_with_its_spectrum_in_an_interval(
    values: list[float], tau: float, seed: int
) -> None:
    """Of all Z with singular values in m (1 -+ tau / (2 + tau)), none that was tried is nearer to S."""
    layer = core(values, seed)
    before, constraint = layer.S.detach().clone(), BoundedSpectrum(tau)
    constraint.project_(layer)
    distance = float((layer.S.detach() - before).norm())
    m, generator = sum(values) / len(values), torch.Generator().manual_seed(seed)
    low, high = (m * (1 + sign * tau / (2 + tau)) for sign in (-1, 1))
    found = torch.linalg.svdvals(layer.S.detach())
    assert low * (1 - 1e-5) <= float(found.min()) <= float(found.max()) <= high * (1 + 1e-5)
    for noise in (0.0, 0.01, 1.0):
        near = before + noise * torch.randn(before.shape, generator=generator).double()
        left, s, right = torch.linalg.svd(near)
        other = left @ torch.diag(s.clamp(low, high)) @ right
        assert float((other - before).norm()) >= distance - 1e-5 * m


def test_the_clamp_is_not_the_projection_onto_bounded_condition_numbers() -> None:
    """An interval that does not lie around the mean holds a nearer matrix, and a second clamp moves again."""
    values, tau = [1.0, 1.0, 1.0, 10.0], 0.1
    layer, constraint = core(values, 0), BoundedSpectrum(tau)
    before = layer.S.detach().clone()
    constraint.project_(layer)
    distance = float((layer.S.detach() - before).norm())
    nearest = min(
        math.sqrt(sum((min(max(x, a), (1 + tau) * a) - x) ** 2 for x in values)) for a in torch.arange(1, 10, 0.01)
    )
    assert nearest < distance * (1 - 1e-3)
    once = layer.S.detach().clone()
    constraint.project_(layer)
    assert constraint.in_set(layer)
    assert float((layer.S.detach() - once).norm()) > 0.01


def test_frozen_layers_are_left_and_others_are_projected() -> None:
    frozen, trained = moved("linear").requires_grad_(False), moved("linear", 1)
    before, constraint = state(frozen), LowRankConstraint(0.1)
    constraint.project_(nn.ModuleList([frozen, trained]))
    torch.testing.assert_close(state(frozen), before, atol=0, rtol=0)
    assert constraint.in_set(trained)
    assert not constraint.in_set(frozen)


def test_a_projection_that_moves_nothing_has_no_largest_condition_number() -> None:
    constraint, layer = BoundedSpectrum(0.1), moved("linear")
    assert constraint.largest is None
    constraint.project_(layer)
    assert float(constraint.largest) <= 1.1
    constraint.project_if_outside_(layer)
    assert constraint.largest is None


@pytest.mark.parametrize("tau", [-0.1, math.inf, math.nan])
def test_an_impossible_tau_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match="tau"):
        LowRankConstraint(tau)


@pytest.mark.parametrize("options", [{}, {"maximize": True}, {"nesterov": True}, {"dampening": 0.5}])
def test_what_momentum_the_optimizer_steps_along_is_tangent(options: dict) -> None:
    torch.manual_seed(0)
    module, constraint = UsersModule(), LowRankConstraint(tau=0.5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, **options)
    constraint.project_(module)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(module.net(torch.rand(8, 1, 8, 8)), torch.arange(8)).backward()
        constraint.gradient_flow_(module, optimizer)
        before = {x: x.detach().clone() for _, layer in factorized_layers(module) for x in (layer.U, layer.V)}
        optimizer.step()
        for x, at in before.items():
            momentum = optimizer.state[x]["momentum_buffer"]
            assert (at.T @ momentum).norm() <= 1e-4 * momentum.norm()
        constraint.project_(module)
