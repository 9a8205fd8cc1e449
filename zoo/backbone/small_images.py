"""The forms that architectures usually take for images of 64 pixels and fewer."""

import math
from collections.abc import Callable
from typing import Any

import timm
from timm.layers import ClassifierHead
from timm.models.vgg import ConvMlp
from torch import nn

SMALL = 64
"""Images of at most this many pixels a side get the small form."""


def small_options(arch: str, height: int, width: int) -> list[dict[str, Any]]:
    """Return the keyword arguments to try, in order, when building ``arch`` for small images.

    Vision transformers and other models of a fixed input size take patches of an eighth of the image, of the longer
    side or less where other patches would leave pixels of either side out; ConvNeXt's patches shrink so that its last
    stage still sees at least 2 x 2 positions.
    """
    size = max(height, width)
    family = timm.models.model_entrypoint(arch).__module__.rpartition(".")[2]
    cfg = timm.get_pretrained_cfg(arch)
    if family == "convnext":
        return [{"patch_size": max(1, size // 16)}]
    if cfg is not None and cfg.fixed_input_size:
        patch = max(1, size // 8)
        if height != width:
            patch = max(p for p in range(1, patch + 1) if height % p == width % p == 0)
        image = size if height == width else (height, width)
        return [
            {"img_size": image, "patch_size": patch},
            {"img_size": image, "patch_size": patch, "window_size": 4},
            {"img_size": image},
        ]
    return [{}]


def _resnet(model: Any, size: int) -> nn.Module:
    """3 x 3 stem of stride 1, no max-pool (He et al. 2016, section 4.2, as usual for CIFAR)."""
    if isinstance(model.conv1, nn.Conv2d):
        old = model.conv1
        model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, 1, 1, bias=old.bias is not None)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    else:
        model.conv1[0].stride = (1, 1)
    model.maxpool = nn.Identity()
    return model


def _vgg(model: Any, size: int) -> nn.Module:
    """512-512-C head (CondLR, arXiv 2306.01485); the first max-pools are removed if the image is too small for five."""
    pools = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)]
    for i in pools[: max(0, len(pools) - int(math.log2(size)))]:
        model.features[i] = nn.Identity()
    width, classes = 512, model.num_classes
    model.pre_logits = ConvMlp(width, width, 1, mlp_ratio=1.0)
    model.num_features = model.head_hidden_size = width
    model.head = ClassifierHead(width, classes, pool_type="avg", drop_rate=0.2)
    for module in (*model.pre_logits.modules(), *model.head.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _unstrided_stem(model: Any, size: int) -> nn.Module:
    """First convolution with stride 1 (as usual for MobileNetV2 and EfficientNet on CIFAR)."""
    first = (model.pretrained_cfg or {}).get("first_conv") or ()
    modules = dict(model.named_modules())
    for name in (first,) if isinstance(first, str) else first:
        stem = modules.get(name)
        if isinstance(stem, nn.Conv2d) and max(stem.kernel_size) <= 7 and stem.stride != stem.kernel_size:
            stem.stride = (1, 1)
    return model


_FAMILIES: dict[str, Callable[[Any, int], nn.Module]] = {"resnet": _resnet, "vgg": _vgg}


def adapt(model: nn.Module, arch: str, size: int) -> nn.Module:
    """Give a freshly built timm model its small-image form, in place, and return it."""
    family = timm.models.model_entrypoint(arch).__module__.rpartition(".")[2]
    cfg = timm.get_pretrained_cfg(arch)
    if cfg is not None and cfg.fixed_input_size:
        return model  # built for this size by its options
    return _FAMILIES.get(family, _unstrided_stem)(model, size)
