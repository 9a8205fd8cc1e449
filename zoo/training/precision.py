"""The number format of a training, by what the machine computes fast and correctly."""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.lowrank.layers import FactorizedConv2d
from zoo.runs.config import Precision
from zoo.runtime.eval_mode import evaluating

WHOLE_MAP = 4
"""Side from which bf16 is wrong if a window and its stride are the whole map."""


def precision_of(wanted: Precision, model: nn.Module, image_shape: tuple[int, int, int], on_cuda: bool) -> str:
    """Return Lightning's name for the precision of the training.

    Args:
        wanted: ``auto``: bf16 if the hardware multiplies in it and computes this network correctly; otherwise fp32.
        model: to be trained, on the CPU.
        image_shape: (channels, height, width) of its images.
        on_cuda: whether a GPU trains it.

    Raises:
        UserError: bf16 was requested on a CPU whose library computes a layer wrongly; the message names it.
    """
    if wanted == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_cuda else _has_bf16_instructions()
        return "bf16-mixed" if fast and (on_cuda or not wrong_in_bf16(model, image_shape)) else "32-true"
    if wanted == "bf16-mixed" and not on_cuda:
        layer = wrong_in_bf16(model, image_shape)
        if layer:
            raise UserError(
                f"on a CPU, {wanted} gets layer {layer} wrong, whose stride is as large as its map: images of "
                f"{image_shape[1]} x {image_shape[2]} are too small for this network; give --precision 32-true"
            )
    return wanted


def _has_bf16_instructions() -> bool:
    """Whether this CPU multiplies in bf16: tiles (AMX), or dot products of vectors (AVX512-BF16), over twice fp32."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


@torch.no_grad()
def wrong_in_bf16(model: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """Return the name of a convolution that CPUs compute wrongly in bf16, or ``""``.

    Observed with oneDNN as in torch 2.15, over kernels of 1 to 8, strides and maps. If a stride exceeds the map, the
    gradients of the weights that read only padding stay uninitialised. If window, stride and map have one size of 4 or
    8, channels last, the results are wrong. No other case was wrong.

    Args:
        model, image_shape: see `precision_of`.
    """
    found: list[str] = []
    names = {m: name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | FactorizedConv2d)}

    def look(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        for size, kernel, stride in zip(inputs[0].shape[-2:], layer.kernel_size, layer.stride, strict=True):
            if kernel > 1 and (stride > size or kernel == stride == size >= WHOLE_MAP):
                found.append(names[layer])

    handles = [layer.register_forward_pre_hook(look) for layer in names]
    try:
        with evaluating(model):
            model(torch.zeros(1, *image_shape))
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""
