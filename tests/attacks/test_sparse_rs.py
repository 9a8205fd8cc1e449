"""Black-box attacks on pixels, a patch and a frame: on linear classifiers against what no search can exceed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.attacks import distance
from zoo.attacks._random import RandomStreams
from zoo.attacks.frame_rs import FrameRS, frame_width
from zoo.attacks.patch_rs import PatchRS, _first_patch, _placed
from zoo.attacks.sparse_rs import SparseRS, _moved, moved_pixels
from zoo.errors import UserError
from zoo.evaluation import Sweep, choose_sweeps

SIDE = 6


def linear(seed: int, channels: int = 1) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a classifier with logits 0 and w x + b that is undecided about grey, and images."""
    torch.manual_seed(seed)
    layer = nn.Linear(channels * SIDE**2, 2)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias.copy_(torch.tensor([0.0, -0.5 * layer.weight[1].sum().item()]))
    model = nn.Sequential(nn.Flatten(), layer).eval()
    images = torch.rand(40, channels, SIDE, SIDE)
    return model, images, model(images).argmax(1)


def gains(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much each pixel can lower the margin, |w| times the room over its channels, and the margin."""
    sign = torch.where(labels == 1, 1.0, -1.0).view(-1, 1, 1, 1)
    weight = model[1].weight[1].detach().view(1, *images.shape[1:]) * sign
    gain = (weight.abs() * torch.where(weight > 0, images, 1 - images)).sum(1)
    return gain, model(images).diff(dim=1)[:, 0].detach() * sign.flatten()


@pytest.mark.parametrize("channels", [1, 3])
def test_it_breaks_a_linear_classifier_where_the_best_pixels_suffice(channels: int) -> None:
    model, images, labels = linear(0, channels)
    gain, margin = gains(model, images, labels)
    for eps in (1, 3):
        breakable = gain.flatten(1).topk(eps, dim=1).values.sum(1) > margin
        robust = SparseRS(queries=400)(model, images, labels, [eps]).robust[0]
        assert robust[~breakable].all()
        assert (robust & breakable).double().mean() <= 0.05
        assert breakable.any()


def test_a_patch_breaks_a_linear_classifier_where_the_best_square_suffices() -> None:
    model, images, labels = linear(1)
    gain, margin = gains(model, images, labels)
    breakable = nn.functional.avg_pool2d(gain[:, None], 2, 1).flatten(1).amax(1) * 4 > margin
    robust = PatchRS(queries=300, restarts=3)(model, images, labels, [5]).robust[0]
    assert robust[~breakable].all()
    assert (robust & breakable).double().mean() <= 0.05
    assert 0 < breakable.sum() < len(images)


def test_a_frame_breaks_a_linear_classifier_where_the_whole_frame_suffices() -> None:
    model, images, labels = linear(2)
    gain, margin = gains(model, images, labels)
    inner = gain[:, 1:-1, 1:-1].sum((1, 2))
    breakable = gain.sum((1, 2)) - inner > margin
    robust = FrameRS(queries=400)(model, images, labels, [25]).robust[0]
    assert robust[~breakable].all()
    assert (robust & breakable).double().mean() <= 0.05
    assert breakable.any()


@pytest.mark.parametrize("attack", [SparseRS(queries=60), PatchRS(queries=60), FrameRS(queries=60)], ids=repr)
def test_only_misclassified_images_within_the_radius_count_as_broken(attack) -> None:
    model, images, labels = linear(3)
    radii = [20, 32] if isinstance(attack, FrameRS) else [1, 4, 9]
    outcome = attack(model, images, labels, radii)
    for eps, found, robust in zip(radii, outcome.adversarial, outcome.robust, strict=True):
        assert torch.equal(model(found).argmax(1) == labels, robust)
        assert (distance(found, images, "L0") <= eps).all()
        assert 0 <= found.min() <= found.max() <= 1
    shares = outcome.robust.double().mean(1)
    assert (shares.diff() <= 0.03).all()


# Pixels.


@given(st.integers(0, 2**16), st.integers(1, 16), st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_a_query_moves_so_many_pixels_and_keeps_their_number(seed: int, pixels: int, count: int) -> None:
    torch.manual_seed(seed)
    images = torch.rand(3, 2, 4, 4).round()
    streams = RandomStreams.of(images, seed, "test")
    x, chosen = _moved(images, (images, torch.zeros(3, 16, dtype=torch.bool)), pixels, streams.at(0))
    assert (chosen.sum(1) == pixels).all()
    differs = (x != images).any(1).flatten(1)
    assert torch.equal(differs, chosen)  # no chosen pixel has its own colour
    count = min(count, pixels, 16 - pixels)
    y, other = _moved(images, (x, chosen), count, streams.at(1))
    assert (other.sum(1) == pixels).all()
    assert ((chosen & ~other).sum(1) == count).all()
    assert torch.equal((y != images).any(1).flatten(1), other)
    stays = chosen & other
    assert torch.equal(y.flatten(2).transpose(1, 2)[stays], x.flatten(2).transpose(1, 2)[stays])


def test_fewer_and_fewer_pixels_move() -> None:
    """The schedule of section 4.1, for 10,000 queries and stretched to others."""
    assert [moved_pixels(i - 1, 10_000, 100) for i in (1, 50, 51, 200, 201, 1001, 9999)] == [15, 15, 7, 7, 6, 3, 1]
    assert [moved_pixels(i - 1, 1000, 100) for i in (1, 5, 6, 999)] == [15, 15, 7, 1]
    assert moved_pixels(0, 5000, 1) == 1


def test_as_many_pixels_as_there_are_may_change() -> None:
    model, images, labels = linear(4)
    assert not SparseRS(queries=200)(model, images, labels, [SIDE**2]).robust.all()


# Patches and frames.


@given(st.integers(0, 2**16), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_a_patch_lies_where_its_corner_is_and_has_corners_of_the_colour_cube(seed: int, side: int) -> None:
    torch.manual_seed(seed)
    images = 0.1 + 0.8 * torch.rand(3, 2, 6, 7)
    patch = _first_patch(images, side, RandomStreams.of(images, seed, "test"))
    assert set(patch.unique().tolist()) <= {0.0, 1.0}
    corner = torch.stack([torch.randint(7 - side, (3,)), torch.randint(8 - side, (3,))], 1)
    placed = _placed(images, patch, corner)
    for image, own, (top, left), before in zip(placed, patch, corner.tolist(), images, strict=True):
        assert torch.equal(image[:, top : top + side, left : left + side], own)
        assert (image != before).any(0).sum() == side**2


def test_the_widest_frame_that_fits() -> None:
    assert frame_width(28, 8, 8) == 1
    assert frame_width(47, 8, 8) == 1
    assert frame_width(48, 8, 8) == 2
    assert frame_width(64, 8, 8) == 4
    assert frame_width(10, 3, 4) == 1
    assert frame_width(12, 3, 4) == 2
    with pytest.raises(UserError, match="a frame of 8 x 8 pixels has at least 28: L0 eps 27 is too small"):
        frame_width(27, 8, 8)


def test_they_are_chosen_by_name() -> None:
    assert choose_sweeps(["sparse_rs"], None, [3.0], 7) == [Sweep(SparseRS(seed=7), (3.0,))]
    assert {s.attack.norm for s in choose_sweeps(["patch_rs", "frame_rs"], None, [30.0])} == {"L0"}
