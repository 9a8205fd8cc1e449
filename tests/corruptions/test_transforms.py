"""Random transforms and the estimated certificate."""

import math

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import gaussian_blur, rotate

from zoo.corruptions.transforms import TRANSFORMS, rotation
from zoo.probes import ProbeContext
from zoo.probes.transforms import Transforms, log_chernoff


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_of_nothing_leaves_the_image_and_others_change_it_within_range(name: str) -> None:
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(TRANSFORMS[name](images, torch.zeros(4)), images, rtol=0, atol=1e-5)
    moved = TRANSFORMS[name](images, torch.tensor([-1.0, -0.5, 0.5, 1.0]))
    assert moved.shape == images.shape
    assert 0 <= moved.min() <= moved.max() <= 1
    assert (moved - images).abs().amax((1, 2, 3)).min() > 0.01


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_a_rotation_turns_pixels_whatever_the_image_s_shape(shape: tuple[int, int]) -> None:
    images = gaussian_blur(torch.rand(1, 3, *shape), 5)
    for u in (-1.0, 0.6):
        expected = rotate(images, 10 * u, InterpolationMode.BILINEAR)
        inside = (..., slice(5, -5), slice(5, -5))  # outside the border is repeated, torchvision's is black
        torch.testing.assert_close(rotation(images, torch.tensor([u]))[inside], expected[inside], rtol=0, atol=1e-4)


def test_the_bound_is_above_the_frequency_of_large_changes() -> None:
    draws, d = torch.rand(200, 50, generator=torch.Generator().manual_seed(0)), torch.linspace(0.01, 1.2, 50)
    bound = log_chernoff(draws, d).exp()
    assert (bound >= (draws >= d).float().mean(0) - 1e-6).all()
    assert bound.max() <= 1


def test_the_bound_of_a_constant_is_as_small_as_the_grid_allows() -> None:
    found = log_chernoff(torch.full((10, 1), 0.1), torch.tensor([0.2]))
    assert found.item() == pytest.approx(-0.1 * 1e4, rel=1e-3)
    assert log_chernoff(torch.full((10, 1), 0.3), torch.tensor([0.2])).item() == 0.0


class Brightness(nn.Module):
    """Says class 1 for bright images; sure of it in proportion to the distance from grey."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.scale * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-z, z], 1)


def test_only_images_that_no_transform_changes_are_certified() -> None:
    images = (torch.tensor([0.1, 0.45, 0.55, 0.9, 0.9]) * 255).round().to(torch.uint8).view(-1, 1, 1, 1)
    context = ProbeContext(Brightness().eval(), images.expand(-1, 1, 8, 8), torch.tensor([0, 0, 1, 1, 0]), 0.1)
    probe = Transforms(draws=50)
    found = {case["transform"]: probe.passed(context, case).tolist() for case in probe.cases(context)}
    assert found["brightness"] == [True, False, False, True, False]
    assert found["rotation"] == [True, True, True, True, False]
    assert math.isclose(probe.risk, 1e-3)
