"""Augmentation by strength: what each does to uint8 batches, and that it can be repeated."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from zoo.data import TrainBatches, augmentation, mixing, open_data
from zoo.data._augment import Augmentation
from zoo.data._base import TensorSource
from zoo.data._random_crops import SCALE, RandomCrops


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(n: int = 12, size: int = 80) -> Tensor:
    image = Image.fromarray(np.array(load_sample_image("flower.jpg"))).resize((size, size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).expand(n, 3, size, size).contiguous()


@pytest.mark.parametrize("strength", ["light", "standard"])
def test_images_stay_bytes_of_their_shape_and_can_be_drawn_again(strength: str) -> None:
    data = open_data("digits")
    images = data.source(train=True).images[:9]
    before = torch.get_rng_state()
    out = augmentation(strength, data)(images, generator())
    assert (out.shape, out.dtype) == (images.shape, torch.uint8)
    assert torch.equal(out, augmentation(strength, data)(images, generator()))
    assert not torch.equal(out, augmentation(strength, data)(images, generator(1)))
    assert torch.equal(before, torch.get_rng_state())


def test_none_changes_nothing_and_light_is_the_data_set_s_own() -> None:
    data = open_data("digits")
    images = data.source(train=True).images[:9]
    assert torch.equal(augmentation("none", data)(images, generator()), images)
    assert augmentation("light", data) == Augmentation(shift=1)
    assert mixing("standard", data) is None


def test_photographs_are_cropped_each_in_its_own_way() -> None:
    images = photographs()
    out = RandomCrops(80)(images, generator())
    assert (out.shape, out.dtype) == (images.shape, torch.uint8)
    assert len({tuple(x.flatten()[::97].tolist()) for x in out}) == len(images)


def test_crops_are_never_of_less_than_their_share() -> None:
    """Of an image whose pixels name their column, the columns that are left span the width of the crop."""
    ramp = torch.linspace(0, 255, 80).round().to(torch.uint8).expand(60, 3, 80, 80).contiguous()
    out = RandomCrops(80)(ramp, generator()).float()
    span = (out[:, 0].amax((1, 2)) - out[:, 0].amin((1, 2))) / 255
    # A part of SCALE of the area is at least so wide: the aspect ratio is 3/4 at least.
    assert span.min() >= (SCALE[0] * 3 / 4) ** 0.5 - 0.03
    assert span.max() <= 1


def test_small_image_folders_are_shifted_and_large_ones_cropped(tmp_path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "0.png")
    kinds = [
        type(open_data("imagefolder(test_fraction=0.5)", data_dir=tmp_path, image_size=size).augmentation)
        for size in (32, 64, 65, 224)
    ]
    assert kinds == [Augmentation, Augmentation, RandomCrops, RandomCrops]


def test_standard_goes_further_than_light() -> None:
    data = open_data("digits")
    images = data.source(train=True).images[:64]
    light, standard = (augmentation(name, data)(images, generator()).float() for name in ("light", "standard"))
    erased = round(255 * data.mean[0])
    assert (standard == erased).flatten(1).sum(1).max() > (light == erased).flatten(1).sum(1).max()
    assert (standard - light).abs().mean() > 5


def test_blends_have_the_shares_of_their_classes() -> None:
    """Every image is of one shade, which names its class: a blend's mean shade is that of its shares."""
    labels = torch.arange(8) % 4
    images = (labels * 60).to(torch.uint8).view(8, 1, 1, 1).expand(8, 3, 32, 32).contiguous()
    data = open_data("digits")
    mix = mixing("strong", data)
    assert mix is not None
    blended_classes = 0
    for seed in range(8):
        out, truth = mix(images, labels, generator(seed))
        assert (out.dtype, out.shape, truth.shape) == (torch.uint8, images.shape, (8, 10))
        torch.testing.assert_close(truth.sum(1), torch.ones(8))
        shade = truth @ (60.0 * torch.arange(10))
        torch.testing.assert_close(out.float().mean((1, 2, 3)), shade, atol=1.0, rtol=0)
        blended_classes += int(((truth > 0).sum(1) > 1).sum())
    assert blended_classes > 8


def test_batches_of_the_strong_kind_can_be_replayed() -> None:
    data = open_data("digits")
    source = data.source(train=True)
    few = TensorSource(source.images[:40], source.labels[:40])

    def batches():
        how = augmentation("strong", data), 0, lambda: 3
        return list(TrainBatches(few, torch.arange(40), 16, *how, mix=mixing("strong", data)))

    once, again = batches(), batches()
    assert len(once) == 2
    for (x, y), (x2, y2) in zip(once, again, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
        assert y.shape == (16, 10)
