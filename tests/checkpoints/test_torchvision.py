"""A torchvision model's logits are those of timm's model with its weights, for each family that both have."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision.models as tv
from make_run import shake
from torch import nn

from zoo.checkpoints import Checkpoint, load_checkpoint_
from zoo.checkpoints.torchvision_names import from_torchvision


def small_transformer() -> nn.Module:
    return tv.VisionTransformer(64, 16, num_layers=2, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=10)


def small_convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    widths = (16, 32, 48, 64, None)
    stages = [
        CNBlockConfig(n, after, layers) for n, after, layers in zip(widths, widths[1:], (1, 1, 2, 1), strict=False)
    ]
    return ConvNeXt(stages, num_classes=10)


def small_swin() -> nn.Module:
    return tv.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [7, 7], stochastic_depth_prob=0.0, num_classes=10)


def named(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: tv.get_model(name, num_classes=10, **options)


CASES = {
    "resnet18": (named("resnet18"), "resnet18", {}, 64),
    "resnext": (named("resnext50_32x4d"), "resnext50_32x4d", {}, 64),
    "vgg11_bn": (named("vgg11_bn"), "vgg11_bn", {}, 64),
    "densenet": (named("densenet121"), "densenet121", {}, 64),
    "mobilenet_v2": (named("mobilenet_v2"), "mobilenetv2_100", {}, 64),
    "mobilenet_v3_small": (named("mobilenet_v3_small"), "mobilenetv3_small_100", {}, 64),
    "mobilenet_v3_large": (named("mobilenet_v3_large"), "mobilenetv3_large_100", {}, 64),
    "efficientnet_b0": (named("efficientnet_b0"), "efficientnet_b0", {}, 64),
    "efficientnet_v2_s": (named("efficientnet_v2_s"), "efficientnetv2_s", {}, 64),
    "regnet_y": (named("regnet_y_400mf"), "regnety_004", {}, 64),
    "inception": (named("inception_v3", init_weights=False), "inception_v3", {}, 96),
    "transformer": (small_transformer, "vit_tiny_patch16_224", {"img_size": 64, "depth": 2}, 64),
    "convnext": (small_convnext, "convnext_tiny", {"depths": (1, 1, 2, 1), "dims": (16, 32, 48, 64)}, 64),
    "swin": (
        small_swin,
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "img_size": 56},
        56,
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_logits_are_torchvision_s(case: str) -> None:
    build, arch, options, side = CASES[case]
    torch.manual_seed(0)
    theirs = shake(build()).eval()
    ours = timm.create_model(arch, num_classes=10, **options).eval()
    # As safetensors files have them: in the order of the names.
    loaded = load_checkpoint_(ours, Checkpoint(Path("x.pth"), dict(sorted(theirs.state_dict().items()))))
    images = torch.rand(2, 3, side, side)
    expected, found = theirs(images), ours(images)
    assert expected.abs().max() > 0.01
    assert (expected - found).abs().max() <= 1e-5 * max(1.0, expected.abs().max())
    assert not loaded.new_head


def test_early_names_of_torchvision_s_densenets_are_known() -> None:
    with torch.device("meta"):
        model = timm.create_model("densenet121")
    own = model.state_dict()
    early = {
        name.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in name
        else name: tensor
        for name, tensor in own.items()
    }
    assert early.keys() != own.keys()
    assert from_torchvision(early, model).keys() == own.keys()
