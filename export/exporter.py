"""Export a deployed model: fold, write, compare, and only then put the file in its place."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from zoo.export.metadata import Metadata
from zoo.export.onnx_file import write_onnx
from zoo.export.parity import check_parity
from zoo.files import atomic
from zoo.layers import FactorPair

ONNX_FILE = "model.onnx"
"""Name of the exported file in a RUN folder."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        params: parameters in it, BatchNorm folded.
        factorized: layers that are two in it.
        parity: largest relative difference of logits, by batch size.
    """

    path: Path
    bytes: int
    params: int
    factorized: int
    parity: dict[int, float]


def export_model(model: nn.Module, metadata: Metadata, path: Path) -> Exported:
    """Write a model as ONNX and compare it with PyTorch; a file that fails is not left behind.

    Args:
        model: the deployed model in eval mode, on the CPU; images in [0, 1] to logits.
        metadata: what the file shall say of itself.
        path: the file; an older one is replaced once the new one has passed.

    Raises:
        UserError: the model cannot be exported, or its logits differ.
    """
    with atomic(path) as temporary:
        folded = write_onnx(model, temporary, metadata.image_shape, metadata.to_props())
        parity = check_parity(model, temporary, metadata.image_shape)
        size = temporary.stat().st_size
    return Exported(
        path=path,
        bytes=size,
        params=sum(p.numel() for p in folded.parameters()),
        factorized=sum(isinstance(module, FactorPair) for module in folded.modules()),
        parity=parity,
    )
