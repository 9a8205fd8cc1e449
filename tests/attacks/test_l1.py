"""Attacks in L1 are held to the exact distance of linear classifiers within [0, 1], and to published code."""

import math
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor, nn

from zoo.attacks import check_eps, distance
from zoo.attacks._apgd_l1 import _split
from zoo.attacks._hyperplane import to_hyperplane
from zoo.attacks._squares import bumps, moved_window
from zoo.attacks._threat import nearest_in_l1, project
from zoo.attacks.apgd import APGD
from zoo.attacks.apgd_t import APGDT
from zoo.attacks.autoattack import AutoAttack
from zoo.attacks.fab_t import FABT
from zoo.attacks.square import Square
from zoo.errors import UserError
from zoo.evaluation import Sweep, choose_sweeps

SHAPE = (2, 5, 5)
CLASSES = 5


def published(name: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return a function of adversarial-library's Auto-PGD, which has its L1 form; skip where it is not installed."""
    if find_spec("visdom") is None:
        monkeypatch.setitem(sys.modules, "visdom", ModuleType("visdom"))  # for plots that nothing here draws
    return getattr(pytest.importorskip("adv_lib.attacks.auto_pgd"), name)


# The projection.

CASES = given(st.integers(0, 2**16), st.floats(0.0, 40.0), st.floats(0.01, 4.0))


@CASES
@settings(max_examples=60, deadline=None)
def test_the_projection_is_the_nearest_point_of_ball_and_box(seed: int, radius: float, scale: float) -> None:
    """Nearest: no point z of the set has an acute angle at it, <y - p, z - p> <= 0."""
    torch.manual_seed(seed)
    images = torch.rand(3, *SHAPE).round(decimals=1)
    wanted = scale * torch.randn_like(images) * (torch.rand_like(images) < 0.7)
    found = nearest_in_l1(wanted, images, radius)
    assert (found.double().abs().sum((1, 2, 3)) <= radius * (1 + 1e-6) + 1e-6).all()
    assert (images + found).min() >= -1e-6
    assert (images + found).max() <= 1 + 1e-6
    for _ in range(20):
        other = torch.rand_like(images) - images
        other *= (radius / other.abs().sum((1, 2, 3), keepdim=True)).clamp_max(1.0) * torch.rand(3, 1, 1, 1)
        angle = ((wanted - found).double() * (other - found).double()).sum((1, 2, 3))
        assert (angle <= 1e-4 * (1 + scale)).all()


@CASES
@settings(max_examples=40, deadline=None)
def test_the_projection_has_the_threshold_that_bisection_finds(seed: int, radius: float, scale: float) -> None:
    torch.manual_seed(seed)
    images = torch.rand(3, *SHAPE)
    wanted = scale * torch.randn_like(images)
    room = torch.where(wanted > 0, 1 - images, images).double()
    low, high = torch.zeros(3, 1, 1, 1).double(), torch.full((3, 1, 1, 1), wanted.abs().max().item()).double()
    for _ in range(80):
        middle = (low + high) / 2
        long = torch.minimum((wanted.abs() - middle).clamp_min(0), room).sum((1, 2, 3), keepdim=True) > radius
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    short = torch.minimum(wanted.abs().double(), room).sum((1, 2, 3), keepdim=True) <= radius
    t = torch.where(short, 0.0, high)
    expected = torch.minimum((wanted.abs() - t).clamp_min(0), room) * wanted.sign()
    torch.testing.assert_close(nearest_in_l1(wanted, images, radius).double(), expected, rtol=0, atol=1e-6)


def test_the_projection_keeps_what_is_inside_and_leaves_entries_without_a_change_alone() -> None:
    images = torch.rand(4, 3, 8, 8)
    near = (images + 0.005 * torch.randn_like(images)).clamp(0, 1)
    near[:, :, 4:] = images[:, :, 4:]
    assert torch.allclose(project(near, images, 6.0, "L1"), near, atol=1e-6)
    assert torch.equal(project(images + 5 * (near - images), images, 0.3, "L1")[:, :, 4:], images[:, :, 4:])


def test_the_projection_is_that_of_adversarial_library(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = published("l1_projection", monkeypatch)
    torch.manual_seed(0)
    for radius in (0.5, 3.0, 30.0):
        images, wanted = torch.rand(30, *SHAPE).round(decimals=1), 2 * torch.randn(30, *SHAPE)
        expected = wanted + theirs(images, wanted, torch.full((30,), radius))  # type: ignore[operator]
        torch.testing.assert_close(nearest_in_l1(wanted, images, radius), expected, rtol=0, atol=1e-4)


# Linear classifiers: the largest entries of the normal move first, each to 0 or 1.


def linear(seed: int = 0, classes: int = CLASSES) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), classes)).eval()
    images = torch.rand(60, *SHAPE)
    return model, images, model(images).argmax(1)


def exact(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the smallest L1 change within [0, 1] that ties each image's label with another class; inf without one."""
    weight, logits = model[1].weight.detach().double(), model(images).detach().double()
    found = torch.full((len(images),), torch.inf).double()
    for i, (x, label) in enumerate(zip(images.flatten(1).double(), labels, strict=True)):
        for other in set(range(len(weight))) - {int(label)}:
            normal = weight[other] - weight[label]
            missing, moved = (logits[i, label] - logits[i, other]).item(), 0.0
            for j in normal.abs().argsort(descending=True):
                room = (1 - x[j] if normal[j] > 0 else x[j]).item()
                step = min(room, missing / normal[j].abs().item())
                moved, missing = moved + step, missing - step * normal[j].abs().item()
                if missing <= 1e-12:
                    found[i] = min(found[i].item(), moved)
                    break
    return found


@pytest.mark.parametrize(
    "attack", [APGD(norm="L1"), APGDT(norm="L1", steps=60), FABT(norm="L1", steps=30)], ids=lambda a: type(a).__name__
)
def test_a_linear_classifier_is_robust_exactly_where_its_distance_exceeds_eps(attack) -> None:
    model, images, labels = linear()
    needed = exact(model, images, labels)
    eps = [needed.quantile(q).item() for q in (0.3, 0.7)]
    for radius, robust in zip(eps, attack(model, images, labels, eps).robust, strict=True):
        assert robust[needed > radius].all()
        missed = robust & (needed < 0.98 * radius)
        if isinstance(attack, FABT):
            assert not missed.any()
        elif isinstance(attack, APGDT):
            assert missed.double().mean() <= 0.05
        else:  # the cross-entropy does not lead to the nearest class
            assert missed.double().mean() <= 0.2


def test_autoattack_runs_its_four_attacks_in_l1() -> None:
    parts = AutoAttack(norm="L1").parts(10)
    assert [type(part) for part in parts] == [APGD, APGDT, FABT, Square]
    assert {part.norm for part in parts} == {"L1"}


def test_square_breaks_a_linear_classifier_without_gradients() -> None:
    model, images, labels = linear(2)
    needed = exact(model, images, labels)
    eps = needed.median().item()
    robust = Square(norm="L1", queries=400)(model, images, labels, [eps]).robust[0]
    assert robust[needed > eps].all()
    assert (~robust).double().mean() > 0.25


@given(st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_the_nearest_point_of_a_hyperplane_is_that_of_linear_programming(seed: int) -> None:
    """Minimise sum(up + down) with <w, up - down> = -excess and both within the room."""
    torch.manual_seed(seed)
    x, w = torch.rand(1, 12), torch.randn(1, 12) * (torch.rand(1, 12) < 0.8)
    excess = torch.tensor([torch.randn(()).item()])
    found = to_hyperplane(x, w, excess, "L1")
    assert (x + found).min() >= -1e-6
    assert (x + found).max() <= 1 + 1e-6
    rooms = [(0.0, room) for room in [*(1 - x[0]).tolist(), *x[0].tolist()]]
    normal = [*w[0].tolist(), *(-w[0]).tolist()]
    best = linprog([1.0] * 24, A_eq=[normal], b_eq=[-excess.item()], bounds=rooms)
    if best.success:
        assert (found * w).sum().item() == pytest.approx(-excess.item(), abs=1e-4)
        assert found.abs().sum().item() == pytest.approx(best.fun, abs=1e-4)


# The ascent.


@pytest.fixture(scope="module")
def bumpy() -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose loss is no plane, on images that it gets right."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 64), nn.Tanh(), nn.Linear(64, CLASSES)).eval()
    model.requires_grad_(False)
    images = torch.rand(80, *SHAPE)
    return model, images, model(images).argmax(1)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 40, 100])
def test_the_stages_share_the_steps(steps: int) -> None:
    counts = _split(steps)
    assert sum(counts) == steps
    assert counts[-1] >= 1
    if steps == 100:
        assert counts == [30, 30, 40]


def test_accuracy_falls_with_the_radius_and_only_misclassified_images_count_as_broken(bumpy) -> None:
    model, images, labels = (part[:40] if isinstance(part, Tensor) else part for part in bumpy)
    radii = [0.25, 1.0, 4.0]
    for attack in (APGD(norm="L1", steps=20), APGDT(norm="L1", steps=10), Square(norm="L1", queries=60)):
        outcome = attack(model, images, labels, radii)
        shares = outcome.robust.double().mean(1)
        assert (shares.diff() <= 0.03).all()
        assert shares[0] > shares[-1]
        for eps, found, robust in zip(radii, outcome.adversarial, outcome.robust, strict=True):
            assert torch.equal(model(found).argmax(1) == labels, robust)
            assert (distance(found, images, "L1") <= eps).all()
            assert 0 <= found.min() <= found.max() <= 1


def test_the_changes_are_sparse(bumpy) -> None:
    model, images, labels = bumpy
    found = APGD(norm="L1")(model, images, labels, [1.0]).adversarial[0]
    changed = (found != images).flatten(1).sum(1).double()
    assert changed.median() < 0.5 * math.prod(SHAPE)


def test_apgd_agrees_with_adversarial_library(bumpy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its starts are random too, so single images may differ."""
    theirs = published("apgd", monkeypatch)
    model, images, labels = bumpy
    for eps in (0.5, 1.5):
        ours = APGD(norm="L1")(model, images, labels, [eps]).robust[0].double().mean()
        adversarial = theirs(  # type: ignore[operator]
            model, images, labels, eps=eps, norm=1, loss_function="ce", use_large_reps=True
        )
        assert abs(ours - (model(adversarial).argmax(1) == labels).double().mean()) <= 2 / len(images)


# Square's proposals.


@given(st.integers(2, 9))
def test_a_bump_in_l1_has_length_one_and_two_signs(s: int) -> None:
    above, beside = bumps(s, torch.tensor([0.0, 0.5]), "L1")
    assert torch.equal(beside, above.mT)
    assert above.abs().sum().item() == pytest.approx(1, abs=1e-5)
    assert above.min() < 0 < above.max()


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_an_l1_proposal_uses_the_whole_radius(seed: int) -> None:
    torch.manual_seed(seed)
    images = torch.full((4, 3, 12, 12), 0.5)
    start = project(images + 0.01 * torch.randn_like(images), images, 0.9, "L1")
    corners = torch.randint(0, 10, (4, 2)), torch.randint(0, 10, (4, 2))
    pattern, sign = bumps(3, torch.rand(4), "L1"), torch.randint(0, 2, (4, 3, 1, 1)) * 2.0 - 1
    moved = moved_window(start, images, 0.9, "L1", corners, pattern, sign)
    torch.testing.assert_close(distance(moved, images, "L1"), torch.full((4,), 0.9).double(), rtol=1e-3, atol=0)


# Which attacks an evaluation runs.


def test_every_tier_has_an_attack_in_l1_and_none_runs_it_unasked() -> None:
    assert choose_sweeps(["quick"], ["L1"], [1.0]) == [Sweep(APGD(norm="L1", steps=40), (1.0,))]
    assert [s.name for s in choose_sweeps(["reliable"], ["L1"])] == ["apgd L1"]
    assert choose_sweeps(["standard"], ["L1"]) == [Sweep(AutoAttack(norm="L1"), (12.0,))]
    for name in ("quick", "reliable", "standard", "full", "apgd", "square", "autoattack"):
        assert "L1" not in {sweep.attack.norm for sweep in choose_sweeps([name])}
    assert replace(APGD(), norm="L1").norm == "L1"


def test_a_radius_beyond_the_image_is_refused() -> None:
    check_eps(75, "L1", 75)
    with pytest.raises(UserError, match="L1 eps 76 exceeds any perturbation"):
        check_eps(76, "L1", 75)
