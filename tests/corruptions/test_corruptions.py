"""Each corruption is held to what the paper says it does, in closed form where there is one."""

import colorsys
import random
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from zoo.corruptions import CORRUPTIONS, SEVERITIES
from zoo.corruptions._borders import inside, sampled, zoomed
from zoo.corruptions._filters import gaussian, motion_blurred, smoothed
from zoo.corruptions.blur import _sources
from zoo.corruptions.digital import _before_affine
from zoo.errors import UserError
from zoo.probes import PROBES, ProbeContext
from zoo.probes.corruptions import Corruptions

NAME = pytest.mark.parametrize("name", CORRUPTIONS)
SEVERITY = pytest.mark.parametrize("severity", SEVERITIES)
SHAPES = [(1, 8, 8), (3, 32, 32), (1, 20, 12), (3, 9, 40), (3, 66, 70), (1, 8, 80)]
SMALL, LARGE = (3, 32, 32), (3, 72, 80)

UNORDERED = {
    ("glass_blur", SMALL): "smoothing gets weaker where pixels move twice",
    ("elastic_transform", SMALL): "the affine map gets milder as the noise gets finer",
    ("glass_blur", LARGE): "rounds go 2, 1, 3, 2, 2",
    ("elastic_transform", LARGE): "the first two severities have a wilder affine map than the others",
    ("fog", LARGE): "the fourth severity is as dense as the third",
    ("snow", LARGE): "the third severity has a higher threshold than the second",
}
"""Published parameters that do not move images further with every step of severity."""


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def smooth_images(n: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Random images whose coarse structures are stronger than their fine ones, as in photographs."""
    generator, (c, h, w) = torch.Generator().manual_seed(seed), shape
    x = torch.zeros(n, c, h, w)
    for cells in (2, 4, 8):
        noise = torch.rand(n, c, cells, cells, generator=generator) / cells
        x += F.interpolate(noise, (h, w), mode="bilinear")
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (255 * (x - low) / (high - low)).round().byte()


def grey(level: int, n: int = 4, shape: tuple[int, int, int] = SMALL) -> Tensor:
    return torch.full((n, *shape), level, dtype=torch.uint8)


def corrupt(name: str, images: Tensor, severity: int, seed: int = 0) -> Tensor:
    return CORRUPTIONS[name](images, severity, torch.Generator().manual_seed(seed))


def test_they_are_the_paper_s_in_its_order_without_frost():
    assert list(CORRUPTIONS) == [
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ]


# What holds for all of them.


@NAME
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_keep_shape_and_type_and_change(name, shape):
    images = smooth_images(3, shape)
    before = images.clone()
    for severity in SEVERITIES:
        found = corrupt(name, images, severity)
        assert found.shape == images.shape
        assert found.dtype == torch.uint8
    assert (found != images).flatten(1).any(1).all()
    assert torch.equal(images, before)


@NAME
def test_equal_generators_give_equal_images_and_no_global_random_state_is_touched(name):
    images = smooth_images(4, SMALL)
    torch.manual_seed(1)
    state, numpys, pythons = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    first = corrupt(name, images, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpys  # noqa: NPY002
    assert random.getstate() == pythons
    torch.manual_seed(2)
    assert torch.equal(corrupt(name, images, 3), first)
    deterministic = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
    assert torch.equal(corrupt(name, images, 3, seed=1), first) == (name in deterministic)


@NAME
@pytest.mark.parametrize("shape", [SMALL, LARGE, (1, 9, 13)], ids=str)
def test_an_image_s_result_depends_on_its_place_and_on_nothing_else_in_the_batch(name, shape):
    images = smooth_images(5, shape)
    whole = corrupt(name, images, 4)
    generator = torch.Generator().manual_seed(0)
    parts = [CORRUPTIONS[name](part, 4, generator) for part in images.split([1, 3, 1])]
    assert torch.equal(torch.cat(parts), whole)
    others = images.clone()
    others[:2] = 255 - others[:2]
    assert torch.equal(corrupt(name, others, 4)[2:], whole[2:])


@NAME
@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
def test_a_larger_severity_moves_images_further(name, shape):
    images = smooth_images(32 if shape == SMALL else 12, shape)
    far = [(corrupt(name, images, s).float() - images).square().mean().sqrt().item() for s in SEVERITIES]
    assert min(far) > 0
    if (name, shape) not in UNORDERED:
        # Motion blur's third and fourth severity differ by less than a grey level.
        assert all(later > 0.999 * earlier for earlier, later in pairwise(far))
        assert far[-1] > 1.2 * far[0]


@NAME
def test_inference_mode_and_autocast_change_nothing(name):
    images = smooth_images(2, SMALL)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = corrupt(name, images, 2)
    assert torch.equal(found, corrupt(name, images, 2))


@pytest.mark.parametrize("shape", [SMALL, LARGE, (1, 9, 13)], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("contrast", "elastic_transform", "pixelate"),
    ],
)
def test_a_constant_image_has_nothing_to_blur_or_move(name, shape):
    images = torch.cat([grey(level, 1, shape) for level in (0, 1, 77, 128, 254, 255)])
    for severity in SEVERITIES:
        assert torch.equal(corrupt(name, images, severity), images)


@NAME
@pytest.mark.parametrize("severity", [0, 6, -1])
def test_severities_are_1_to_5(name, severity):
    with pytest.raises(UserError, match=r"1 to 5"):
        corrupt(name, grey(9), severity)


@NAME
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(2, 3, 8, 8), "uint8"),
        (grey(0, shape=(2, 8, 8)), "C 1 or 3"),
        (grey(0, shape=(3, 7, 8)), ">= 8"),
        (grey(0)[0], "B, C, H, W"),
    ],
)
def test_images_that_cannot_be_corrupted_are_refused(name, images, words):
    with pytest.raises(UserError, match=words):
        corrupt(name, images, 1)


# Noise.


@pytest.mark.parametrize(("shape", "deviation"), [(SMALL, 0.08), (LARGE, 0.18)])
def test_gaussian_noise_has_the_published_deviation(shape, deviation):
    change = corrupt("gaussian_noise", grey(128, 20, shape), 3).double() - 128
    # Clipping at 0 and 255 is beyond 2.7 deviations.
    assert change.std().item() == pytest.approx(255 * deviation, rel=0.02)
    assert change.mean().abs() < 0.5


@pytest.mark.parametrize("level", [1, 20, 120])
@pytest.mark.parametrize(("shape", "photons"), [(SMALL, 100), (LARGE, 12)])
def test_shot_noise_has_the_mean_and_the_variance_of_counted_photons(level, shape, photons):
    found = corrupt("shot_noise", grey(level, 40, shape), 3).double() / 255 * photons
    counts = found.round()
    assert (found - counts).abs().max() <= 0.5 / 255 * photons + 1e-9
    mean = level / 255 * photons
    assert counts.mean().item() == pytest.approx(mean, rel=0.05)
    assert counts.var().item() == pytest.approx(mean, rel=0.06)


@SEVERITY
def test_shot_noise_leaves_black_and_counts_what_the_poisson_distribution_does(severity):
    assert not corrupt("shot_noise", grey(0), severity).any()
    photons = (60, 25, 12, 5, 3)[severity - 1]
    counts = corrupt("shot_noise", grey(51, 40, LARGE), severity).double() / 255 * photons
    for k in range(4):
        below = torch.special.gammaincc(torch.tensor(k + 1.0), torch.tensor(photons / 5)).item()
        assert (counts < k + 0.5).double().mean().item() == pytest.approx(below if k < photons else 1, abs=0.01)


@pytest.mark.parametrize(("shape", "share"), [(SMALL, 0.07), (LARGE, 0.27)])
def test_impulse_noise_sets_the_published_share_of_numbers_half_to_black_and_half_to_white(shape, share):
    found = corrupt("impulse_noise", grey(100, 40, shape), 5)
    assert set(found.unique().tolist()) == {0, 100, 255}
    for extreme in (0, 255):
        assert (found == extreme).double().mean().item() == pytest.approx(share / 2, rel=0.06)
    both = (found[:, 0] != 100) & (found[:, 1] != 100)
    assert both.double().mean().item() == pytest.approx(share**2, rel=0.2)


# Blur.


@SEVERITY
@pytest.mark.parametrize("side", [31, 71])
def test_defocus_blur_spreads_a_dot_evenly_over_a_disk(severity, side):
    dot, middle = grey(0, 1, (1, side, side)), side // 2
    dot[..., middle, middle] = 255
    found = corrupt("defocus_blur", dot, severity)[0, 0]
    assert torch.equal(found, found.T)
    assert torch.equal(found, found.flip(0))
    radius = (0.3, 0.4, 0.5, 1, 1.5)[severity - 1] if side == 31 else (3, 4, 6, 8, 10)[severity - 1]
    down, right = found.nonzero().T - middle
    assert (down.square() + right.square()).double().sqrt().max() <= radius + 3
    if side == 71:  # one level is the rounding of a hundredth of white
        within = ((torch.arange(side) - middle).square()[:, None] + (torch.arange(side) - middle).square()) <= radius**2
        assert found[middle, middle].item() == round(255 / within.sum().item())


def test_glass_blur_takes_every_value_from_one_pixel_up_or_left():
    images = smooth_images(4, SMALL)
    found = corrupt("glass_blur", images, 1)  # its smoothing is too narrow to do anything
    candidates = torch.stack([images.roll((down, right), (2, 3)) for down in (0, 1) for right in (0, 1)])
    assert (found == candidates).any(0)[:, :, 1:, 1:].all()
    moved = (found != images).any(1)
    assert moved[:, 2:, 2:].double().mean() > 0.5
    assert not moved[:, :2].any()
    assert not moved[:, :, :2].any()


@pytest.mark.parametrize("reach", [1, 2, 4])
@pytest.mark.parametrize(("h", "w"), [(11, 14), (8, 8)])
def test_glass_blur_ends_where_pixels_end_that_move_one_after_the_other(reach, h, w):
    moves = torch.randint(-reach, reach, (3, 2, h, w))
    found = _sources(moves, reach)
    for move, sources in zip(moves.tolist(), found, strict=True):
        values = torch.arange(h * w).view(h, w)
        for i in range(h - reach, reach, -1):
            for j in range(w - reach, reach, -1):
                values[i, j] = values[i + move[0][i][j], j + move[1][i][j]].clone()
        assert torch.equal(values.flatten(), sources)


@pytest.mark.parametrize(("angle", "direction"), [(0, (0, 1)), (90, (1, 0)), (-90, (-1, 0)), (45, (1, 1))])
def test_motion_blur_smears_a_dot_along_its_line_as_half_a_gaussian(angle, direction):
    dot = torch.zeros(1, 1, 41, 41)
    dot[..., 20, 20] = 1
    found = motion_blurred(dot, 6, 2.0, torch.tensor([float(angle)]))[0, 0]
    assert found.sum().item() == pytest.approx(1)
    assert (found.nonzero() - 20).abs().max() <= 12
    for step in range(1, 4):
        # A diagonal line passes through fewer pixels than it is long, so some get several weights.
        if angle != 45:
            share = found[20 - step * direction[0], 20 - step * direction[1]] / found[20, 20]
            assert share.item() == pytest.approx(np.exp(-(step**2) / 8), rel=1e-5)
        else:
            assert found[20 - step, 20 - step] > 0
            assert found[20 + step, 20 + step] == found[20 - step, 20 + step] == 0


def test_an_enlargement_by_two_has_half_the_slope():
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    enlarged = zoomed(ramp, 2.0)
    assert enlarged.shape == ramp.shape
    assert torch.allclose(enlarged[0, 0, 5].diff(), torch.tensor(15 / 31), atol=1e-5)
    assert enlarged.mean().item() == pytest.approx(ramp.mean().item())
    assert torch.equal(zoomed(ramp, 1.0), ramp)


@pytest.mark.parametrize("border", ["edge", "symmetric"])
def test_smoothing_is_a_gaussian_and_keeps_the_mean_of_what_is_mirrored(border):
    dot = torch.zeros(1, 1, 25, 31)
    dot[..., 12, 15] = 1
    row = smoothed(dot, 1.5, 4, border)[0, 0, 12]
    assert torch.allclose(row / row[15], (-(torch.arange(31) - 15).square() / 4.5).exp(), atol=2e-4)
    noise = torch.rand(2, 25, 31)
    # The width of the Gaussian may be far larger than the image.
    wide = smoothed(noise, 60.0, 3, "symmetric")
    assert torch.allclose(wide.mean((1, 2)), noise.mean((1, 2)), atol=1e-6)
    assert wide.std() < noise.std() / 100
    assert gaussian(torch.arange(-2.0, 3), 0).tolist() == [0, 0, 1, 0, 0]


def test_borders_go_on_with_copies_or_mirrored():
    index = torch.arange(-5, 8)
    assert inside(index, 3, "edge").tolist() == [0] * 5 + [0, 1, 2] + [2] * 5
    assert inside(index, 3, "reflect").tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    assert inside(index, 3, "symmetric").tolist() == [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]


# Weather.


@SEVERITY
@pytest.mark.parametrize("shape", [SMALL, (1, 72, 72)], ids=str)
def test_snow_never_darkens(severity, shape):
    images = smooth_images(4, shape)
    assert (corrupt("snow", images, severity) >= images).all()


@SEVERITY
@pytest.mark.parametrize(("side", "density"), [(32, (0.2, 0.5, 0.75, 1, 1.5)), (128, (1.5, 2, 2.5, 2.5, 3))])
def test_fog_on_white_lies_between_its_thinnest_and_its_thickest_place(severity, side, density):
    found = corrupt("fog", grey(255, 3, (3, side, side)), severity)
    assert (found.amax((1, 2, 3)) == 255).all()
    assert (found.amin((1, 2, 3)) == round(255 / (1 + density[severity - 1]))).all()
    assert torch.equal(found[:, 0], found[:, 2])
    assert not corrupt("fog", grey(0), severity).any()


@SEVERITY
@pytest.mark.parametrize(("shape", "more"), [(SMALL, (5, 10, 15, 20, 30)), (LARGE, (10, 20, 30, 40, 50))])
def test_brightness_raises_the_value_of_every_colour_and_keeps_its_hue_and_saturation(severity, shape, more):
    added = more[severity - 1] / 100
    for level in (0, 60, 130, 250):
        found = corrupt("brightness", grey(level, 1, shape), severity)
        assert (found - min(level + 255 * added, 255)).abs().max() <= 0.501
    images = smooth_images(1, shape)
    pairs = zip(images[0].flatten(1).T, corrupt("brightness", images, severity)[0].flatten(1).T, strict=True)
    for before, after in list(pairs)[:200]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255).tolist())
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))
        assert torch.allclose(after.double(), 255 * torch.tensor(wanted, dtype=torch.double), atol=0.51)


# Digital.


@pytest.mark.parametrize(("shape", "kept"), [(SMALL, (75, 50, 40, 30, 15)), (LARGE, (40, 30, 20, 10, 5))])
def test_contrast_keeps_the_mean_and_a_share_of_the_distances_from_it(shape, kept):
    images = grey(0, 1, shape)
    images[..., ::2] = 200
    for share, severity in zip(kept, SEVERITIES, strict=True):
        found = corrupt("contrast", images, severity)
        assert sorted(found.unique().tolist()) == [100 - share, 100 + share]


def test_points_that_an_affine_map_moved_are_found_where_they_were():
    jumps = torch.tensor([[[3.0, -1.5]] * 3, [[0.0, 0.0]] * 3, [[1.0, 0.0], [0.5, -2.0], [0.0, 1.0]]])
    rows, columns = _before_affine(jumps.double(), 12, 20)
    down, right = torch.meshgrid(torch.arange(12.0), torch.arange(20.0), indexing="ij")
    assert torch.allclose(rows[0].float(), down + 1.5, atol=1e-5)
    assert torch.allclose(columns[0].float(), right - 3, atol=1e-5)
    assert torch.allclose(rows[1].float(), down, atol=1e-5)
    # The first of the three points lies in row 6 + 4 and column 10 + 4, and went one column to the right.
    assert rows[2, 10, 15].item() == pytest.approx(10)
    assert columns[2, 10, 15].item() == pytest.approx(14)


def test_sampling_between_pixels_is_bilinear():
    x = torch.rand(2, 3, 5, 6)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    rows, columns = rows.expand(2, -1, -1), columns.expand(2, -1, -1)
    assert torch.equal(sampled(x, rows, columns, "reflect"), x)
    found = sampled(x, rows + 0.25, columns + 0.5, "edge")[:, :, :-1, :-1]
    left, right = (0.75 * part[:, :, :-1] + 0.25 * part[:, :, 1:] for part in (x[..., :-1], x[..., 1:]))
    assert torch.allclose(found, (left + right) / 2)


@SEVERITY
def test_elastic_transform_moves_values_and_makes_none(severity):
    images = smooth_images(8, SMALL) // 2 + 60
    found = corrupt("elastic_transform", images, severity)
    assert found.min() >= 60
    assert found.max() <= 188
    assert (found.double() - images).abs().mean() < 15


@SEVERITY
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pixelate_is_pillow_s_box_filter_up_to_its_rounding(severity, shape):
    images = smooth_images(1, shape)
    scale = (0.95, 0.9, 0.85, 0.75, 0.65) if max(shape) <= 64 else (0.6, 0.5, 0.4, 0.3, 0.25)
    w, h = shape[2], shape[1]
    small = (int(w * scale[severity - 1]), int(h * scale[severity - 1]))
    for channel, found in zip(images[0], corrupt("pixelate", images, severity)[0], strict=True):
        shrunk = Image.fromarray(channel.numpy()).resize(small, Image.Resampling.BOX)
        wanted = torch.from_numpy(np.array(shrunk.resize((w, h), Image.Resampling.BOX)))
        assert (found.int() - wanted.int()).abs().max() <= 1
        assert found.unique().numel() <= small[0] * small[1]


@pytest.mark.parametrize(("shape", "rms"), [(SMALL, 12), ((1, 32, 32), 6), (LARGE, 16)])
def test_jpeg_keeps_smooth_images_roughly(shape, rms):
    images = smooth_images(4, shape)
    for severity in SEVERITIES:
        change = corrupt("jpeg_compression", images, severity).double() - images
        assert 0.2 < change.square().mean().sqrt() < rms
        assert change.mean().abs() < 1


# The probe.


class Watched(nn.Module):
    """A linear classifier that keeps what it was shown."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.clone())
        return self.layers(images)

    def taken(self) -> Tensor:
        seen, self.seen = torch.cat(self.seen), []
        return seen


@pytest.fixture
def context() -> ProbeContext:
    images = smooth_images(30, (3, 8, 8))
    return ProbeContext(Watched(192).eval(), images, torch.arange(30) % 4, eps=0.03, batch_size=30)


def test_the_probe_looks_at_every_corruption_at_every_severity(context):
    assert PROBES.get("corruptions") is Corruptions
    assert Corruptions().obstacle(context) == ""
    cases = Corruptions().cases(context)
    assert len(cases) == 14 * 5
    assert {(case["corruption"], case["severity"]) for case in cases} == set(product(CORRUPTIONS, SEVERITIES))
    assert cases[1] == {"corruption": "gaussian_noise", "severity": 2}
    for case in cases:
        passed = Corruptions().passed(context, case)
        assert passed.shape == (30,)
        assert passed.dtype == torch.bool


@pytest.mark.parametrize("name", ["brightness", "pixelate", "jpeg_compression"])
def test_the_probe_classifies_the_corrupted_images(name, context):
    images = (context.images * 255).round().byte()
    by_hand = corrupt(name, images, 5).float() / 255
    passed = Corruptions().passed(context, {"corruption": name, "severity": 5})
    assert torch.equal(context.model.taken(), by_hand)
    assert torch.equal(passed, context.model(by_hand).argmax(1) == context.labels)


@NAME
def test_the_probe_repeats_itself_whatever_the_batch_size(name, context):
    case = {"corruption": name, "severity": 3}
    first = Corruptions().passed(context, case)
    seen = context.model.taken()
    context.batch_size = 7
    assert torch.equal(Corruptions().passed(context, case), first)
    assert torch.equal(context.model.taken()[:30], seen)  # the last batch, of two, is filled up


def test_the_probe_s_noise_depends_on_the_seed_the_corruption_and_the_severity(context):
    def noise(seed: int, name: str, severity: int) -> Tensor:
        Corruptions(seed=seed).passed(context, {"corruption": name, "severity": severity})
        return (context.model.taken() - context.images).sign()

    first = noise(0, "gaussian_noise", 1)
    for other in (noise(1, "gaussian_noise", 1), noise(0, "shot_noise", 1), noise(0, "gaussian_noise", 2)):
        assert (other * first).mean().abs() < 0.1


def test_the_probe_says_of_which_images_it_can_make_nothing():
    images = torch.zeros(2, 2, 8, 8, dtype=torch.uint8)
    context = ProbeContext(Watched(128).eval(), images, torch.zeros(2, dtype=torch.long), eps=0.03)
    assert "C 1 or 3" in Corruptions().obstacle(context)
