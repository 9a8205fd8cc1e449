"""On a CPU, a network gets as many images at once as its cache holds activations for."""

import torch
from torch import Tensor, nn

from zoo.attacks import AttackedModel
from zoo.attacks._batch_size import CACHED_BYTES, CACHED_PIXELS, FEWEST, images_at_once


def convolution(channels: int, stride: int = 1) -> nn.Sequential:
    layers = nn.Conv2d(3, channels, 3, stride, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(channels, 5)).eval()


IMAGE = torch.zeros(1, 3, 32, 32)


def test_small_networks_get_more_images_at_once():
    assert images_at_once(convolution(64), IMAGE, 250) == CACHED_PIXELS // 32**2
    halved = 16 * 16 * 16 * 4  # 16 maps of 16 x 16, larger than the image itself
    assert images_at_once(convolution(16, stride=2), IMAGE, 1000) == CACHED_BYTES // halved
    assert images_at_once(convolution(16, stride=2), IMAGE, 100) == 100


def test_weights_are_no_activations():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32**2, 4096), nn.ReLU(), nn.Linear(4096, 5)).eval()
    assert images_at_once(wide, IMAGE, 10**6) == CACHED_BYTES // (4096 * 4)


def test_large_images_and_functions_without_gradients_keep_the_rule_of_pixels():
    assert images_at_once(convolution(64), torch.zeros(1, 3, 512, 512), 250) == FEWEST

    class Opaque(nn.Module):
        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :5]

    assert images_at_once(Opaque().eval(), IMAGE, 250) == CACHED_PIXELS // 32**2
    outside = images_at_once(lambda images: torch.from_numpy(images.numpy()), IMAGE, 250)  # type: ignore[arg-type]
    assert outside == CACHED_PIXELS // 32**2


def test_the_size_is_measured_once_for_each_size_of_images():
    seen: list[int] = []
    network = convolution(16)
    network.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    attacked = AttackedModel(network)
    assert attacked.at_once(IMAGE) == CACHED_PIXELS // 32**2
    assert seen == []
    many = IMAGE.repeat(100, 1, 1, 1)
    assert attacked.at_once(many) == attacked.at_once(many[:99]) == CACHED_BYTES // (16 * 32 * 32 * 4)
    assert len(seen) == 1
