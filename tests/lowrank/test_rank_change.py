"""A change of basis leaves the weight and the training as they are; a cut is a truncation."""

import pytest
import timm.optim
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.channels import fit_shapes_
from zoo.errors import UserError
from zoo.linalg import orthonormality_error
from zoo.linalg.basis import BasisChange, singular_basis, slicing
from zoo.lowrank.layers import FactorizedLinear
from zoo.lowrank.rank_change import augment_, change_basis_, diagonalize_

SIZES = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(1, 12), st.integers(0, 999))


def factors(n: int, m: int, r: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    r = min(n, m, r)
    return tuple(torch.randn(shape, generator=g, dtype=torch.float64) for shape in ((n, r), (r, r), (m, r)))


@given(SIZES)
def test_the_singular_basis_is_an_svd_of_the_product(sizes: tuple[int, int, int, int]) -> None:
    u, s, v = factors(*sizes)
    change = singular_basis(u, s, v)
    new_u, new_s, new_v = (change.factor(role, x) for role, x in (("U", u), ("S", s), ("V", v)))
    torch.testing.assert_close(new_u @ new_s @ new_v.T, u @ s @ v.T, atol=1e-6, rtol=1e-6)
    for x in (new_u, new_v):
        torch.testing.assert_close(x.T @ x, torch.eye(x.shape[1], dtype=x.dtype), atol=1e-8, rtol=0)
    values = torch.linalg.svdvals(u @ s @ v.T)[: s.shape[0]]
    torch.testing.assert_close(new_s, torch.diag(values), atol=1e-6, rtol=1e-6)


@given(SIZES)
def test_gradients_follow_by_the_chain_rule(sizes: tuple[int, int, int, int]) -> None:
    u, s, v = factors(*sizes)
    change, target = singular_basis(u, s, v), torch.randn(len(u), len(v), dtype=torch.float64)

    def gradients(*x: Tensor) -> tuple[Tensor, ...]:
        x = tuple(y.clone().requires_grad_() for y in x)
        return torch.autograd.grad((x[0] @ x[1] @ x[2].T * target).sum(), x)

    roles = ("U", "S", "V")
    new = gradients(*(change.factor(role, x) for role, x in zip(roles, (u, s, v), strict=True)))
    for role, before, after in zip(roles, gradients(u, s, v), new, strict=True):
        torch.testing.assert_close(change.gradient(role, before), after, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("role", ["U", "S", "V"])
def test_second_moments_are_those_of_uncorrelated_entries(role: str) -> None:
    u, s, v = factors(6, 5, 3)
    change, spread = singular_basis(u, s, v), torch.rand({"U": u, "S": s, "V": v}[role].shape, dtype=torch.float64)
    # Entries +-spread with all combinations of signs, so that the mean of squares is exact: one entry at a time.
    expected = torch.zeros_like(change.gradient(role, spread))
    for index in range(spread.numel()):
        one = torch.zeros_like(spread).flatten()
        one[index] = spread.flatten()[index]
        expected += change.gradient(role, one.reshape(spread.shape)).square()
    torch.testing.assert_close(change.second_moment(role, spread.square()), expected)


def layer_and_optimizer(kind: str) -> tuple[FactorizedLinear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layer = FactorizedLinear(nn.Linear(9, 8), 4).double()
    with torch.no_grad():
        for x in (layer.U, layer.V):
            x.copy_(torch.linalg.qr(x)[0])
        layer.S.copy_(torch.randn(4, 4))
    if kind == "sgd":
        return layer, torch.optim.SGD(layer.parameters(), lr=0.001, momentum=0.9, weight_decay=0.1)
    return layer, torch.optim.Adam(layer.parameters(), lr=0.01)


def step(layer: FactorizedLinear, optimizer: torch.optim.Optimizer) -> None:
    x = torch.linspace(-1, 1, 45, dtype=torch.float64).reshape(5, 9)
    optimizer.zero_grad()
    layer(x).square().sum().backward()
    optimizer.step()


def test_training_by_momentum_does_not_notice_a_rotation() -> None:
    """The steps of SGD are equivariant under rotations of the columns, if the momenta turn along."""
    layer, optimizer = layer_and_optimizer("sgd")
    u, v = (torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0] for _ in range(2))
    rotation = BasisChange(u, u.T, v, v.T)
    plain, plain_optimizer = layer_and_optimizer("sgd")
    for _ in range(3):
        step(layer, optimizer)
        step(plain, plain_optimizer)
    change_basis_(layer, rotation, [optimizer])
    assert not torch.allclose(layer.U, plain.U)
    for _ in range(3):
        step(layer, optimizer)
        step(plain, plain_optimizer)
    torch.testing.assert_close(layer.weight, plain.weight)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_cut_slices_the_state_and_keeps_the_parameters(kind: str) -> None:
    layer, optimizer = layer_and_optimizer(kind)
    step(layer, optimizer)
    diagonalize_(layer, [optimizer])
    parameters = [layer.U, layer.S, layer.V]
    before = {p: {k: x.clone() for k, x in optimizer.state[p].items()} for p in parameters}
    weight, kept = layer.weight.detach().clone(), torch.tensor([0, 2])
    values = layer.S.detach().diagonal().clone()
    change_basis_(layer, slicing(layer.S, kept), [optimizer])
    assert all(a is b for a, b in zip(parameters, (layer.U, layer.S, layer.V), strict=True))
    assert layer.rank == 2
    slices = {
        layer.U: (slice(None), kept),
        layer.S: torch.meshgrid(kept, kept, indexing="ij"),
        layer.V: (slice(None), kept),
    }
    for p, index in slices.items():
        for key, value in before[p].items():
            expected = value if value.ndim == 0 else value[index]
            assert torch.equal(optimizer.state[p][key], expected)
    lost = torch.linalg.matrix_norm(weight - layer.weight)
    torch.testing.assert_close(lost, values[[1, 3]].square().sum().sqrt())
    step(layer, optimizer)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in layer.parameters())


def test_an_optimizer_whose_state_cannot_follow_starts_anew_with_the_parameter() -> None:
    layer, _ = layer_and_optimizer("sgd")
    optimizer = torch.optim.Adafactor(layer.parameters())
    step(layer, optimizer)
    diagonalize_(layer, [optimizer])
    change_basis_(layer, slicing(layer.S, torch.tensor([0, 2])), [optimizer])
    before = layer.weight.detach().clone()
    step(layer, optimizer)
    assert not torch.equal(layer.weight, before)
    assert optimizer.state[layer.U]["row_var"].shape == (len(layer.U), 1)
    assert optimizer.state[layer.U]["col_var"].shape == (1, 2)
    assert optimizer.state[layer.U]["step"] == 1


def test_fast_products_that_the_user_allows_do_not_blur_a_change() -> None:
    layer, before = FactorizedLinear(nn.Linear(300, 200), 64), torch.get_float32_matmul_precision()
    weight = layer.weight.detach().clone()
    torch.set_float32_matmul_precision("medium")
    try:
        diagonalize_(layer)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert orthonormality_error(layer.U.detach()) <= 1e-5
    torch.testing.assert_close(layer.weight, weight, atol=1e-5, rtol=1e-4)


def test_an_average_follows() -> None:
    layer, optimizer = layer_and_optimizer("sgd")
    average, _ = layer_and_optimizer("sgd")
    step(layer, optimizer)
    before = average.weight.detach().clone()
    diagonalize_(layer, [optimizer], [average])
    torch.testing.assert_close(average.weight, before)
    change_basis_(layer, slicing(layer.S, torch.tensor([0, 1])), [optimizer], [average])
    assert average.rank == 2


def test_layers_take_the_ranks_of_saved_weights() -> None:
    model = nn.Sequential(FactorizedLinear(nn.Linear(9, 8), 4))
    saved = nn.Sequential(FactorizedLinear(nn.Linear(9, 8), 6)).state_dict()
    parameter = model[0].U
    fit_shapes_(model, saved)
    model.load_state_dict(saved)
    assert model[0].U is parameter
    assert torch.equal(model[0].weight, model[0].U @ model[0].S @ model[0].V.T)
    assert model[0].rank == 6


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.0),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-3),
    "radam": lambda p: torch.optim.RAdam(p, 1e-3),
    "adamax": lambda p: torch.optim.Adamax(p, 1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-3),
    "adadelta": lambda p: torch.optim.Adadelta(p, 1.0),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9),
    "centred rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, centered=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, 1e-3),
    "muon": lambda p: torch.optim.Muon(p, 1e-3, weight_decay=0.0),
    "sgd": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
    "adabelief": lambda p: timm.optim.AdaBelief(p, 1e-3, amsgrad=True, rectify=False),
    "timm muon": lambda p: timm.optim.Muon(p, 1e-3, algo="adamuon"),
    "timm adafactor": lambda p: timm.optim.Adafactor(p, 1e-3),
    "lion": lambda p: timm.optim.Lion(p, 1e-3),
    "adan": lambda p: timm.optim.Adan(p, 1e-3),
    "sgdp": lambda p: timm.optim.SGDP(p, 1e-3, momentum=0.9),
    "lookahead": lambda p: timm.optim.Lookahead(torch.optim.Adam(p, 1e-3), k=10_000),
}


def trained(make, steps: int = 200) -> tuple[FactorizedLinear, torch.optim.Optimizer]:
    """A layer with orthonormal bases whose factors have had many noisy gradients of one distribution."""
    torch.manual_seed(0)
    layer = FactorizedLinear(nn.Linear(40, 32, bias=False), 8)
    optimizer = make([layer.U, layer.S, layer.V])
    for _ in range(steps):
        noisy_step(layer, optimizer)
    with torch.no_grad():
        layer.U.copy_(torch.linalg.qr(layer.U)[0])
        layer.V.copy_(torch.linalg.qr(layer.V)[0])
    return layer, optimizer


def noisy_step(layer: FactorizedLinear, optimizer: torch.optim.Optimizer) -> None:
    for p in (layer.U, layer.S, layer.V):
        p.grad = 0.5 + torch.randn_like(p)
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_new_coordinates_take_no_longer_steps_than_the_old_ones(name: str) -> None:
    layer, optimizer = trained(OPTIMIZERS[name])
    augment_(layer, torch.randn_like(layer.U), torch.randn_like(layer.V), [optimizer])
    assert layer.rank == 16
    factors, new = (layer.U, layer.S, layer.V), torch.zeros(16, 16, dtype=torch.bool)
    new[8:], new[:, 8:] = True, True
    new_of = {0: torch.arange(16).expand(32, 16) >= 8, 1: new, 2: torch.arange(16).expand(40, 16) >= 8}
    for _ in range(5):
        before = [p.detach().clone() for p in factors]
        noisy_step(layer, optimizer)
        for i, (p, old) in enumerate(zip(factors, before, strict=True)):
            moved = (p.detach() - old).square()
            assert moved[new_of[i]].mean().sqrt() <= 1.5 * moved[~new_of[i]].mean().sqrt()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_after_a_cut(name: str) -> None:
    layer, optimizer = trained(OPTIMIZERS[name], 3)
    diagonalize_(layer, [optimizer])
    change_basis_(layer, slicing(layer.S, torch.tensor([0, 2, 5])), [optimizer])
    before = layer.S.detach().clone()
    noisy_step(layer, optimizer)
    assert layer.S.isfinite().all()
    assert not torch.equal(layer.S, before)


@pytest.mark.parametrize(
    ("optimizer", "name"), [(torch.optim.Rprop, "Rprop"), (torch.optim.ASGD, "ASGD"), (timm.optim.MADGRAD, "MADGRAD")]
)
def test_an_optimizer_whose_state_is_unknown_is_refused_by_name(optimizer, name: str) -> None:
    layer, made = trained(lambda p: optimizer(p, lr=1e-3), 2)
    with pytest.raises(UserError, match=f"{name} keeps .* AdamW"):
        diagonalize_(layer, [made])


def test_an_infinity_norm_follows_as_a_magnitude() -> None:
    """Of a gradient with independent entries of variance x^2 each, whose squares add up."""
    layer, optimizer = trained(OPTIMIZERS["adamax"], 1)
    before = optimizer.state[layer.U]["exp_inf"].clone()
    half = torch.full((8, 8), 8**-0.5) * torch.linalg.qr(torch.randn(8, 8))[0].sign()
    change_basis_(layer, BasisChange(half, half.T, torch.eye(8), torch.eye(8)), [optimizer])
    expected = before.square().mean(1, keepdim=True).sqrt().expand(-1, 8)
    torch.testing.assert_close(optimizer.state[layer.U]["exp_inf"], expected)
