"""Compare the logits of PyTorch and of ONNX Runtime."""

from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.latency.session import OnnxModel

LIMIT = 1e-4
"""Largest difference of logits, relative to the largest logit, that an exported file may have."""
BATCHES = (1, 5)
"""Batch sizes compared: neither is the one that the graph was traced with."""


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Return max|found - expected| / max|expected|, or the difference itself if all expected values are 0."""
    difference, scale = (found - expected).abs().max().item(), expected.abs().max().item()
    return difference / scale if scale else difference


@torch.no_grad()
def check_parity(model: nn.Module, path: Path, image_shape: tuple[int, int, int]) -> dict[int, float]:
    """Return max|a - b| / max|a| of the logits a of PyTorch and b of the file on the CPU, by batch size.

    Args:
        model: the model in eval mode, on the CPU.
        path: the exported file.
        image_shape: (channels, height, width) of the random images.

    Raises:
        UserError: a difference is above `LIMIT`, or not a number.
    """
    onnx_model = OnnxModel(path, "cpu")
    generator = torch.Generator().manual_seed(1)
    differences = {}
    for batch in BATCHES:
        images = torch.rand(batch, *image_shape, generator=generator)
        expected = model(images)
        differences[batch] = relative_difference(torch.from_numpy(onnx_model.logits(images.numpy())), expected)
    worst = max(differences, key=lambda batch: (differences[batch] != differences[batch], differences[batch]))
    if not differences[worst] <= LIMIT:
        raise UserError(
            f"the ONNX file's logits differ from PyTorch's by {differences[worst]:.1e} of the largest "
            f"(batch {worst}), the limit is {LIMIT:.0e}: do not use it"
        )
    return differences
