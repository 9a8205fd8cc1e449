"""Retraction, tangent space and spectrum clamp against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.linalg import (
    blocks,
    clamp_each,
    clamp_spectrum,
    condition_number,
    orthonormality_error,
    padded,
    product_singular_values,
    random_stiefel,
    retract,
    retract_each,
    tangent,
)

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31)).map(
    lambda t: (max(t[0], t[1]), t[1], t[2])
)


def matrix(n: int, r: int, seed: int) -> Tensor:
    return torch.randn(n, r, generator=torch.Generator().manual_seed(seed))


def with_spectrum(values: Tensor, seed: int) -> Tensor:
    r = len(values)
    generator = torch.Generator().manual_seed(seed)
    return random_stiefel(r, r, generator) @ torch.diag(values) @ random_stiefel(r, r, generator).T


@given(SHAPES, st.floats(0, 3))
@settings(deadline=None, max_examples=60)
def test_retraction_is_the_positive_qr_factorization(shape: tuple[int, int, int], step: float) -> None:
    n, r, seed = shape
    x = random_stiefel(n, r, torch.Generator().manual_seed(seed)) + step * matrix(n, r, seed + 1) / n**0.5
    if torch.linalg.cond(x) > 1e3:
        return
    q, triangle = retract(x)
    assert orthonormality_error(q) <= 1e-5
    torch.testing.assert_close(q @ triangle, x, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(triangle, triangle.triu())
    assert (triangle.diagonal() > 0).all()


def test_retraction_of_an_ill_conditioned_matrix_is_still_orthonormal() -> None:
    x = matrix(200, 20, 0) @ with_spectrum(torch.logspace(0, -4, 20), 1)
    assert orthonormality_error(retract(x)[0]) <= 1e-5


@pytest.mark.parametrize("ranks", [(5, 5, 5, 5), (5, 9, 12, 1)])
@pytest.mark.parametrize("far", [0.0, 1.0])
def test_retraction_of_several_is_that_of_each(ranks: tuple[int, ...], far: float) -> None:
    """Rows and columns may differ, and one far from orthonormal takes none of the others along."""
    sizes = zip((30, 9, 50, 5), ranks, (0.01, far, 0.02, 0.0), strict=True)
    xs = [random_stiefel(n, r) + step * torch.randn(n, r) for n, r, step in sizes]
    q, triangle = retract_each(xs)
    for one, q_one, r_one in zip(xs, q, blocks(triangle, ranks), strict=True):
        torch.testing.assert_close(retract(one)[0], q_one)
        torch.testing.assert_close(retract(one)[1], r_one)


def test_retraction_agrees_with_the_tangent_space_to_first_order() -> None:
    x = random_stiefel(50, 8).double()
    d = tangent(x, torch.randn(50, 8, dtype=torch.float64))
    errors = [(retract(x + h * d)[0] - (x + h * d)).norm().item() for h in (1e-2, 1e-3)]
    assert errors[1] < errors[0] / 50  # a retraction's error is of second order


@given(SHAPES)
@settings(deadline=None, max_examples=30)
def test_tangent_is_the_orthogonal_projection(shape: tuple[int, int, int]) -> None:
    n, r, seed = shape
    x = random_stiefel(n, r, torch.Generator().manual_seed(seed))
    projected = tangent(x, matrix(n, r, seed + 1))
    torch.testing.assert_close(x.T @ projected, torch.zeros(r, r), atol=1e-5, rtol=0)
    torch.testing.assert_close(tangent(x, projected), projected, atol=1e-5, rtol=1e-4)


def test_no_wide_stiefel_point_exists() -> None:
    with pytest.raises(ValueError, match="n >= r"):
        random_stiefel(3, 4)


@given(st.lists(st.floats(1e-4, 1e2), min_size=1, max_size=24), st.floats(0, 2), st.integers(0, 2**31))
@settings(deadline=None, max_examples=80)
def test_clamp_bounds_the_condition_number(values: list[float], tau: float, seed: int) -> None:
    clamped, reported = clamp_spectrum(with_spectrum(torch.tensor(values), seed), tau)
    rounding = 2e-6 if tau < 1e-4 else 0.0
    assert torch.linalg.cond(clamped.double()) <= 1 + tau + rounding
    torch.testing.assert_close(
        reported.sort().values, torch.linalg.svdvals(clamped).sort().values, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("tau", [0.0, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("smallest", [0.5, 1e-3])
def test_clamp_clips_singular_values_around_their_mean_and_keeps_the_vectors(tau: float, smallest: float) -> None:
    s = with_spectrum(torch.linspace(smallest, 2, 10), 3).double()
    left, values, right = torch.linalg.svd(s)
    mean, k = values.mean(), 1 + tau
    e = mean * (k - 1) / (k + 1)
    expected = left @ torch.diag(values.clamp(mean - e, mean + e)) @ right
    torch.testing.assert_close(clamp_spectrum(s, tau)[0], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("tau", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("sizes", [(6, 6, 6), (1, 4, 12), (12, 10, 2)])
def test_clamping_several_is_clamping_each(sizes: tuple[int, ...], tau: float) -> None:
    cores = [with_spectrum(torch.linspace(0.5, 2, n) * (i + 1), i) for i, n in enumerate(sizes)]
    clamped, conditions = clamp_each(cores, tau)
    for core, found, condition in zip(cores, clamped, conditions, strict=True):
        torch.testing.assert_close(found, clamp_spectrum(core, tau)[0], atol=2e-5, rtol=1e-5)
        assert torch.linalg.cond(found.double()) <= 1 + tau + (2e-6 if tau == 0 else 0)
        torch.testing.assert_close(torch.linalg.cond(found), condition, atol=1e-5, rtol=1e-5)


def test_products_and_inverses_of_padded_matrices_are_padded() -> None:
    matrices = [torch.randn(n, n) + 3 * torch.eye(n) for n in (2, 5, 3)]
    batch = padded(matrices, torch.tensor([1.0, 2.0, 3.0]))
    assert batch.shape == (3, 5, 5)
    for matrix, found in zip(matrices, blocks(torch.linalg.inv(batch) @ batch @ batch, (2, 5, 3)), strict=True):
        torch.testing.assert_close(found, matrix)
    assert torch.equal(batch[0, 2:, 2:], torch.eye(3))
    assert not batch[0, :2, 2:].any()


@pytest.mark.parametrize("entry", [float("inf"), float("nan")])
def test_clamping_what_has_diverged_is_refused(entry: float) -> None:
    s = torch.eye(4)
    s[1, 2] = entry
    with pytest.raises(torch.linalg.LinAlgError):
        clamp_each([s, torch.eye(2)], 0.1)


def test_singular_values_of_a_product_without_forming_it() -> None:
    u, s, v = torch.randn(40, 6), torch.randn(6, 6), torch.randn(30, 6)
    expected = torch.linalg.svdvals((u @ s @ v.T).double())[:6].float()
    torch.testing.assert_close(product_singular_values(u, s, v), expected, rtol=1e-5, atol=1e-6)
    u[:, 3] = 0  # not of full rank, as after padding
    assert product_singular_values(u, s, v)[-1] <= 1e-5


def test_clamp_leaves_a_bounded_spectrum_alone() -> None:
    s = with_spectrum(torch.linspace(0.96, 1.04, 12), 0)
    torch.testing.assert_close(clamp_spectrum(s, 0.1)[0], s, atol=1e-5, rtol=0)


def test_clamp_survives_a_singular_matrix() -> None:
    clamped, _ = clamp_spectrum(torch.diag(torch.tensor([1.0, 1.0, 0.0])), 0.1)
    assert torch.linalg.cond(clamped) <= 1.1


def test_condition_number_of_a_singular_matrix_is_infinite() -> None:
    assert condition_number(torch.tensor([2.0, 0.0])) == torch.inf
    assert condition_number(torch.tensor([3.0, 1.5])) == 2


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_clamping_neither_overflows_nor_vanishes(scale: float) -> None:
    s = with_spectrum(torch.tensor([3.0, 1.0, 0.5, 1e-4]), 0)
    torch.testing.assert_close(clamp_spectrum(s * scale, 0.1)[0] / scale, clamp_spectrum(s, 0.1)[0])
