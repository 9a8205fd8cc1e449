"""The parts of AutoAttack: each against its definition, or a classifier whose worst case is known."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.attacks import ATTACKS, AttackedModel
from zoo.attacks._apgd import _Search, apgd, checkpoints
from zoo.attacks._attacked_model import in_turn
from zoo.attacks._hyperplane import to_hyperplane
from zoo.attacks._losses import cross_entropy, dlr, likeliest_others, margin, targeted_dlr
from zoo.attacks._random import RandomStreams
from zoo.attacks._squares import _pyramid, bumps, moved_window, side, square
from zoo.attacks._threat import distance
from zoo.attacks.apgd import APGD
from zoo.attacks.apgd_t import APGDT
from zoo.attacks.autoattack import AutoAttack
from zoo.attacks.fab_t import FABT
from zoo.attacks.pgd import PGD
from zoo.attacks.square import Square
from zoo.errors import UserError

SHAPE = (1, 6, 6)
CLASSES = 6
DUAL = {"Linf": 1, "L2": 2}
NORM = pytest.mark.parametrize("norm", ["Linf", "L2"])


@pytest.fixture(scope="module")
def linear() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear classifier on grey images, that no perturbation used here clips."""
    torch.manual_seed(0)
    layer = nn.Linear(math.prod(SHAPE), CLASSES)
    with torch.no_grad():
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    model = nn.Sequential(nn.Flatten(), layer).eval()
    images = 0.5 + 0.3 * (torch.rand(80, *SHAPE) - 0.5)
    return model, images, model(images).argmax(1)


def exact_radius(model: nn.Module, images: Tensor, labels: Tensor, norm: str) -> Tensor:
    """Return each image's distance to the nearest other class of a linear classifier: margin over dual norm."""
    weight, logits = model[1].weight.detach().double(), model(images).detach().double()
    differences = weight[labels][:, None] - weight[None]
    distances = (logits.gather(1, labels[:, None]) - logits) / differences.norm(DUAL[norm], dim=2)
    return distances.scatter(1, labels[:, None], torch.inf).amin(1)


@NORM
@pytest.mark.parametrize("attack", [APGDT(steps=40), FABT(steps=40), AutoAttack()], ids=lambda a: type(a).__name__)
def test_a_linear_classifier_is_robust_exactly_where_its_margin_is_large_enough(attack, norm, linear):
    model, images, labels = linear
    needed = exact_radius(model, images, labels, norm)
    eps = needed.median().item()
    robust = replace(attack, norm=norm)(model, images, labels, [eps]).robust[0]
    assert not (robust & (needed < 0.99 * eps)).any()
    assert robust[needed > eps].all()


def test_square_breaks_a_linear_classifier_without_gradients(linear):
    model, images, labels = linear
    needed = exact_radius(model, images, labels, "Linf")
    eps = needed.median().item()
    robust = Square(queries=1500)(model, images, labels, [eps]).robust[0]
    assert not (robust & (needed < 0.97 * eps)).any()
    assert robust[needed > eps].all()


def test_square_goes_by_rounded_estimates(linear, monkeypatch):
    """Half precision has the ten bits of TF32."""
    model, images, labels = linear
    needed = exact_radius(model, images, labels, "Linf")
    eps = needed.median().item()
    monkeypatch.setattr(AttackedModel, "estimate", lambda attacked, x: attacked.logits(x).half().float())
    robust = Square(queries=1500)(model, images, labels, [eps]).robust[0]
    assert not (robust & (needed < 0.95 * eps)).any()
    assert robust[needed > eps].all()


def test_an_image_leaves_square_by_exact_logits_only(linear, monkeypatch):
    """Estimates that call each image fallen keep none from being searched to the end."""
    model, images, labels = linear
    seen: list[int] = []
    monkeypatch.setattr(AttackedModel, "estimate", lambda attacked, x: -attacked.logits(x))
    assert Square(queries=20)(model, images, labels, [1e-6], tick=seen.append).robust.all()
    assert sum(seen) >= 20 * len(images)


def test_square_in_l2_comes_near(linear):
    model, images, labels = linear
    needed = exact_radius(model, images, labels, "L2")
    eps = needed.median().item()
    robust = Square(norm="L2", queries=1500)(model, images, labels, [eps]).robust[0]
    assert not (robust & (needed < 0.7 * eps)).any()
    assert robust[needed > eps].all()


@NORM
def test_fab_finds_the_nearest_point_of_the_boundary(norm, linear):
    """With a generous eps the first point it accepts is OVERSHOOT times the exact distance away."""
    model, images, labels = linear
    needed = exact_radius(model, images, labels, norm)
    found = FABT(norm=norm, steps=2, targets=1)(model, images, labels, [3 * needed.max().item()]).adversarial[0]
    moved = distance(found, images, norm)
    assert (moved >= needed).all()
    assert (moved <= 1.5 * needed).double().mean() > 0.6  # the likeliest other class is mostly the nearest


@NORM
def test_fab_breaks_every_dark_image_whose_boundary_is_near(norm):
    """Pixels that move by more than themselves: there image + (x - image) is not x to the last bit."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    images = torch.randint(0, 40, (50, 3, 8, 8)) / 255
    labels = model(images).argmax(1)
    normal, logits = model[1].weight.diff(dim=0).detach(), model(images).detach()
    nearest = to_hyperplane(images.flatten(1), normal.expand(50, -1), logits.diff(dim=1)[:, 0], norm)
    reachable = (nearest * normal).sum(1) * logits.diff(dim=1)[:, 0] < 0
    eps = 1.1 * nearest.norm(torch.inf if norm == "Linf" else 2, dim=1).max().item()
    robust = FABT(norm=norm, steps=20)(model, images, labels, [eps]).robust[0]
    assert reachable.all()
    assert not robust.any()


# Losses.


@given(st.lists(st.integers(-50, 50), min_size=5, max_size=5, unique=True), st.floats(0.01, 100), st.floats(-3, 3))
def test_dlr_does_not_change_when_logits_are_scaled_and_shifted(logits, scale, shift):
    z, label, target = torch.tensor([logits], dtype=torch.float64) / 10, torch.tensor([1]), torch.tensor([3])
    torch.testing.assert_close(dlr(scale * z + shift, label), dlr(z, label), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        targeted_dlr(scale * z + shift, label, target), targeted_dlr(z, label, target), rtol=1e-4, atol=1e-6
    )


def test_losses_by_hand():
    z = torch.tensor([[4.0, 1.0, 3.0, 0.0, 2.0]])
    label, wrong = torch.tensor([0]), torch.tensor([2])
    assert margin(z, label).item() == -1
    assert margin(z, wrong).item() == 1
    assert dlr(z, label).item() == pytest.approx(-1 / 2)
    assert dlr(z, wrong).item() == pytest.approx(1 / 2)
    assert targeted_dlr(z, label, torch.tensor([4])).item() == pytest.approx((2 - 4) / (4 - (2 + 1) / 2))
    assert likeliest_others(z, label, 3).tolist() == [[2, 4, 1]]
    assert cross_entropy(z, label).item() == pytest.approx(-math.log(math.exp(4) / sum(map(math.exp, z[0].tolist()))))


# Auto-PGD.


def test_the_step_size_is_looked_at_when_the_paper_says():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1000)[:3] == [220, 410, 570]


def test_the_step_size_is_halved_where_the_reference_says():
    """Conditions 1 and 2 of section 3.1, after 16 steps; more than 12 must rise, where the paper asks for 12."""
    rises = torch.tensor([13.0, 12.0, 16.0, 16.0, 16.0])
    best = torch.tensor([2.0, 2.0, 1.0, 1.0, 2.0])  # it was 1 at the last look
    halved = torch.tensor([False, True, False, True, False])  # at the last look
    here, there = torch.zeros(5, 1, 1, 1), torch.ones(5, 1, 1, 1)
    state = _Search(
        torch.arange(5), here, here, here, torch.zeros(5), here, there, best, there, torch.full((5,), 0.2), rises,
        torch.ones(5), halved,
    )  # fmt: skip
    state.look(16)
    too_few_rises, no_better_and_not_halved_before = 1, 2
    expected = torch.zeros(5, dtype=torch.bool)
    expected[[too_few_rises, no_better_and_not_halved_before]] = True
    torch.testing.assert_close(state.size, torch.where(expected, 0.1, 0.2))
    assert torch.equal(state.halved, expected)
    # Those go back to their best point, with its gradient.
    for field in (state.x, state.gradient):
        assert torch.equal(field.flatten(), expected.float())
    assert torch.equal(state.last_best, best)
    assert not state.rises.any()


def test_apgd_climbs_higher_than_pgd_of_as_many_steps(bumpy):
    model, images, labels = bumpy
    found = apgd(
        AttackedModel(model), images, labels, 0.3, "L2", cross_entropy, None, 100, RandomStreams.of(images, 0, "test")
    )
    pgd = PGD(norm="L2", steps=100)(model, images, labels, [0.3]).adversarial[0]
    climbed, other = (cross_entropy(model(x), labels).detach() for x in (found, pgd))
    fell = model(pgd).argmax(1) != labels
    assert climbed[~fell].mean() >= other[~fell].mean() - 1e-3


@pytest.fixture(scope="module")
def bumpy():
    """A network whose loss is no plane, on images that it gets right."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 64), nn.Tanh(), nn.Linear(64, CLASSES)).eval()
    with torch.no_grad():
        model[1].weight.mul_(6)
        model[3].weight.mul_(4)
    images = torch.rand(60, *SHAPE)
    return model, images, model(images).argmax(1)


@NORM
def test_autoattack_leaves_nothing_standing_that_one_of_its_parts_breaks(norm, bumpy):
    model, images, labels = bumpy
    eps = [0.04 if norm == "Linf" else 0.15]
    together = AutoAttack(norm=norm)(model, images, labels, eps).robust
    assert 0 < together.double().mean() < 1
    for part in AutoAttack(norm=norm).parts(CLASSES):
        assert not (together & ~part(model, images, labels, eps).robust).any()


def test_autoattack_is_the_standard_one():
    names = [ATTACKS.name_of(part) for part in AutoAttack().parts(10)]
    assert names == ["apgd", "apgd_t", "fab_t", "square"]
    ce, targeted, fab, black_box = AutoAttack().parts(10)
    assert (ce.loss, ce.steps, ce.restarts) == ("ce", 100, 1)
    assert (targeted.steps, targeted.restarts, targeted.targets) == (100, 1, 9)
    assert (fab.steps, fab.targets) == (100, 9)
    assert (black_box.queries, black_box.restarts) == (5000, 1)


def test_too_few_classes_are_named():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval()
    images, labels = torch.rand(2, *SHAPE), torch.zeros(2, dtype=torch.long)
    with pytest.raises(UserError, match="needs 3 classes, the model has 2"):
        APGD(loss="dlr")(model, images, labels, [0.1])
    with pytest.raises(UserError, match="needs 4 classes, the model has 2"):
        APGDT()(model, images, labels, [0.1])
    assert [ATTACKS.name_of(part) for part in AutoAttack().parts(2)] == ["apgd", "fab_t", "square"]


def test_searches_in_turn_get_only_what_stands(linear):
    model, images, labels = linear
    asked: list[list[int]] = []

    def breaks_even_rows(rows: Tensor) -> Tensor:
        asked.append(rows.tolist())
        broken = images[rows].clone()
        even = rows % 2 == 0
        broken[even] = images[(labels[rows[even], None] != labels).int().argmax(1)]  # an image of another class
        return broken

    in_turn(AttackedModel(model), images, labels, [breaks_even_rows] * 2)
    assert asked == [list(range(80)), list(range(1, 80, 2))]


def test_batches_of_the_model_do_not_change_what_an_attack_finds(bumpy):
    model, images, labels = bumpy
    whole = APGD(steps=10)(model, images, labels, [0.05]).adversarial
    torch.testing.assert_close(APGD(steps=10)(model, images, labels, [0.05], batch_size=7).adversarial, whole)


# The step of FAB.


@NORM
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), share=st.floats(-1.2, 1.2))
def test_the_nearest_point_of_a_hyperplane_within_the_box(norm, seed, share):
    """Compared with bisection over how far every pixel moves until it meets 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 12, generator=generator, dtype=torch.float64).round(decimals=1)
    w = torch.randn(1, 12, generator=generator, dtype=torch.float64)
    w[0, :2] = 0
    direction = -torch.sign(w) * math.copysign(1, share)
    room = torch.where(direction > 0, 1 - x, x)
    excess = share * (w.abs() * room).sum(1)
    speed = torch.ones_like(w) if norm == "Linf" else w.abs()
    low, high = 0.0, 1e6
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if (w.abs() * torch.minimum(t * speed, room)).sum() < excess.abs() else (low, t)
    expected = direction * torch.minimum(high * speed, room)
    d = to_hyperplane(x, w, excess, norm)
    torch.testing.assert_close(d, expected, atol=1e-6, rtol=1e-5)
    assert ((x + d >= -1e-12) & (x + d <= 1 + 1e-12)).all()
    if abs(share) <= 1:
        torch.testing.assert_close((w * d).sum(1), -excess, atol=1e-6, rtol=1e-5)


def test_a_flat_boundary_is_not_moved_to():
    assert (to_hyperplane(torch.rand(2, 5), torch.zeros(2, 5), torch.ones(2), "L2") == 0).all()


# Squares.


def test_the_side_of_the_square_shrinks_as_in_autoattack():
    """Share 0.8 of 32 x 32 pixels, halved after 10, 50, ..., 8000 queries: the last of 5,000 sees 7 of 9 halvings."""
    assert side(0, 32, 32) == side(10, 32, 32) == round(math.sqrt(0.8 * 1024)) == 29
    assert side(11, 32, 32) == round(math.sqrt(0.4 * 1024)) == 20
    assert side(4999, 32, 32) == round(math.sqrt(0.8 * 1024 / 2**7)) == 3
    assert side(9999, 32, 32) == 1
    assert side(0, 8, 4) == 4


@given(st.integers(1, 9), st.integers(0, 7), st.integers(0, 5))
def test_a_square_lies_where_its_corner_is(s, top, left):
    inside = square(torch.tensor([[top, left]]), s, 20, 16)[0, 0]
    assert inside.sum() == s * s
    assert inside[top : top + s, left : left + s].all()


@given(st.integers(2, 15))
def test_a_bump_has_length_one_and_two_signs(s):
    above, beside = bumps(s, torch.tensor([0.0, 0.5]), "L2")
    assert above.shape == (1, s, s)
    assert torch.equal(beside, above.mT)
    assert above.norm().item() == pytest.approx(1, abs=1e-5)
    assert above.min() < 0 < above.max()


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_pyramid_is_the_sum_of_section_3_4(height, width):
    """eta(r, c) = sum over k = 0..M of 1/(n + 1 - k)^2, M = n - max(|r - middle|, |c - middle|), r and c from 0."""
    n = max(height, width) // 2

    def eta(r: int, c: int) -> float:
        return sum(1 / (n + 1 - k) ** 2 for k in range(n - max(abs(r - height // 2), abs(c - width // 2)) + 1))

    expected = torch.tensor([[eta(r, c) for c in range(width)] for r in range(height)])
    torch.testing.assert_close(_pyramid(height, width, "L2"), expected / expected.norm())


@given(st.integers(0, 1000))
@settings(deadline=None)
def test_an_l2_proposal_uses_the_whole_radius(seed):
    """Far from 0 and 1, where nothing is clipped, every proposal is eps away from the image."""
    torch.manual_seed(seed)
    images = torch.full((4, 3, 12, 12), 0.5)
    start = images + 0.01 * torch.randn_like(images)
    start = images + 0.3 * (start - images) / (start - images).flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    corners = torch.randint(0, 10, (4, 2)), torch.randint(0, 10, (4, 2))
    pattern, sign = bumps(3, torch.rand(4), "L2"), torch.randint(0, 2, (4, 3, 1, 1)) * 2.0 - 1
    moved = moved_window(start, images, 0.3, "L2", corners, pattern, sign)
    torch.testing.assert_close(distance(moved, images, "L2"), torch.full((4,), 0.3).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("query", [0, 11, 60, 300, 4999])
def test_l2_windows_lie_within_the_image(query, monkeypatch):
    """Of 12 x 12 pixels: sides 10, 8, 5, 4 and 3 become 11, 9, 5, 5 and 3 before their corners are drawn."""
    seen: list[tuple[tuple[Tensor, Tensor], int]] = []

    def proposal(x: Tensor, images: Tensor, eps: float, norm: str, corners, pattern: Tensor, sign: Tensor) -> Tensor:
        seen.append((corners, pattern.shape[-1]))
        return x

    monkeypatch.setattr("zoo.attacks.square.moved_window", proposal)
    images = torch.rand(500, 1, 12, 12)
    Square(norm="L2")._propose(query, images, images, 0.5, RandomStreams.of(images, 0, "test"))
    ((corners, s),) = seen
    assert s % 2 == 1
    for corner in corners:
        assert (corner.amin(0) == 0).all()
        assert (corner.amax(0) == 12 - s).all()
