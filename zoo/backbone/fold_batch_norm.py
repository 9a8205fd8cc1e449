"""Fold batch normalisation into the preceding layer, in any model, by observing one forward pass."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

TOLERANCE = 2e-5
"""Largest change of the logits, relative to the largest one, that rounding may cause."""
PROBE_IMAGES = 2
"""Random images on which folded and unfolded models are compared."""

Pair = tuple[str, str]
"""Names of a linear or convolution layer and of the BatchNorm that reads its output."""


def fold_batch_norm(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a copy, in eval mode, without the BatchNorms that directly follow a convolution or linear layer.

    A pair is folded if the BatchNorm's input is the very tensor that the layer returned, each is used once, and the
    logits do not change. A layer whose output has a second reader therefore keeps its BatchNorm. Whatever else a
    BatchNorm module does (timm's activation and dropout) stays.

    Args:
        model: takes images, returns logits.
        image_shape: (channels, height, width) of the images.
    """
    model = copy.deepcopy(model).eval()
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(PROBE_IMAGES, *image_shape, generator=generator).to(parameter.device, parameter.dtype)
    with torch.no_grad():
        pairs = batch_norm_pairs(model, images)
        return _fold_verified(model, pairs, images, model(images))


def _fold_verified(model: nn.Module, pairs: list[Pair], images: Tensor, logits: Tensor) -> nn.Module:
    """Fold the pairs that leave the logits unchanged; halve the list to find those that do not."""
    if not pairs:
        return model
    folded = copy.deepcopy(model)
    for producer, norm in pairs:
        _fold_pair(folded, producer, norm)
    if (folded(images) - logits).abs().max() <= TOLERANCE * logits.abs().max():
        return folded
    if len(pairs) == 1:
        return model
    half = len(pairs) // 2
    model = _fold_verified(model, pairs[:half], images, logits)
    return _fold_verified(model, pairs[half:], images, logits)


def has_plain_weight(module: nn.Module) -> bool:
    """Return whether a module is a linear or convolution layer whose weight is a plain parameter."""
    return isinstance(module, nn.Conv2d | nn.Linear) and module._parameters.get("weight") is not None


@torch.no_grad()
def batch_norm_pairs(
    model: nn.Module, images: Tensor, is_layer: Callable[[nn.Module], bool] = has_plain_weight
) -> list[Pair]:
    """List the (layer, BatchNorm) pairs in which the layer feeds the BatchNorm and each is used once.

    Args:
        model: the model in eval mode; it is run once.
        images: (B, C, H, W), to run it on.
        is_layer: which modules count as layers.
    """
    names = {module: name for name, module in model.named_modules()}
    produced: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the tensors; otherwise their ids would be reused
    pairs: list[tuple[nn.Module, nn.Module]] = []
    uses: Counter[nn.Module] = Counter()

    def after_layer(module: nn.Module, _: Any, output: Tensor) -> None:
        uses[module] += 1
        produced[id(output)] = (module, output)

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        uses[module] += 1
        if inputs and id(inputs[0]) in produced:
            pairs.append((produced[id(inputs[0])][0], module))

    handles = []
    for module in names:
        if is_layer(module):
            handles.append(module.register_forward_hook(after_layer))
        elif _is_affine_map(module):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    once = [(layer, norm) for layer, norm in pairs if uses[layer] == uses[norm] == 1 and _same_channels(layer, norm)]
    fed = Counter(layer for layer, _ in once)
    return [(names[layer], names[norm]) for layer, norm in once if fed[layer] == 1]


def _same_channels(layer: Any, norm: Any) -> bool:
    """Return whether the norm's channels are the layer's outputs: in (batch, a, b), a BatchNorm1d takes those of a."""
    return layer.weight.shape[0] == norm.num_features


def _is_affine_map(module: nn.Module) -> bool:
    """Return whether a module scales and shifts channels in eval mode, and then at most applies timm's drop and act."""
    if not isinstance(module, _BatchNorm) or module.running_mean is None or module.running_var is None:
        return False
    plain = type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
    return plain or (hasattr(module, "drop") and hasattr(module, "act"))


def _fold_pair(model: nn.Module, producer: str, norm: str) -> None:
    layer: Any = model.get_submodule(producer)
    bn: Any = model.get_submodule(norm)
    # Float64 throughout: the only rounding is that of the final weights.
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    if bn.weight is not None:
        scale = scale * bn.weight.double()
    bias = torch.zeros_like(scale) if layer.bias is None else layer.bias.double()
    bias = (bias - bn.running_mean.double()) * scale
    if bn.bias is not None:
        bias = bias + bn.bias.double()
    weight = layer.weight.double() * scale.view(-1, *(1,) * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype))
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype))
    rest = nn.Sequential(bn.drop, bn.act) if hasattr(bn, "act") else nn.Identity()
    parent, _, child = norm.rpartition(".")
    setattr(model.get_submodule(parent), child, rest.eval())
