"""Baselines without compression: the dense backbone, and the common ways to make it faster."""

import copy
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import timm
from torch import nn

from zoo.backbone import create_backbone, with_normalization
from zoo.export.onnx_file import write_onnx, write_plainly
from zoo.export.precision import CALIBRATION_BATCH, saturates_here, to_int8
from zoo.latency.measure import Program
from zoo.latency.timing import random_images
from zoo.runs.file_metadata import Metadata
from zoo.runtime.complexity import count_macs, count_params
from zoo.runtimes import Source


@dataclass(frozen=True)
class Reference:
    """A dense model with random weights: latency does not depend on them.

    Attributes:
        name: what to call it.
        metadata: of the dense model.
        path: its file; None if it is not an ONNX file.
        program: what is timed.
        network: the model that the file holds, BatchNorm folded; None if it is not at hand.
    """

    name: str
    metadata: Metadata
    path: Path | None
    program: Path | Program
    network: nn.Module | None = None

    def source(self) -> Source | None:
        """Return what runtimes convert; None if it is not an ONNX file."""
        if self.path is None:
            return None
        build = None if self.network is None else partial(copy.deepcopy, self.network)
        return Source(self.path, self.metadata.image_shape, build, self.metadata.precision)


def has_backbone(metadata: Metadata) -> bool:
    """Return whether a model's dense backbone can be built, which it cannot for models that `zoo.export_onnx` wrote."""
    return timm.is_model(metadata.arch.partition(".")[0])


def dense_metadata(metadata: Metadata) -> Metadata:
    """Return the metadata of the backbone that a model was compressed from."""
    return replace(
        metadata,
        method="dense",
        params=metadata.dense_params,
        macs=metadata.dense_macs,
        ranks={},
        weights_sha256="",
        training="",
        target="generic",
        precision="fp32",
        forms={},
        graph_params=None,
        graph_macs=None,
    )


def export_dense(metadata: Metadata, folder: Path) -> Reference:
    """Export the dense backbone as `zoo export` would, with BatchNorm folded."""
    ours = dense_metadata(metadata)
    path = _new(folder, "dense")
    folded = write_onnx(_model(ours), path, ours.image_shape, ours.to_props())
    params, macs = count_params(folded), count_macs(folded, ours.image_shape)
    metadata = replace(ours, graph_params=params, graph_macs=macs)
    return Reference(f"{ours.arch} (dense)", metadata, path, path, folded)


def other_baselines(dense: Reference, folder: Path, threads: int) -> list[Reference]:
    """Return the dense backbone as PyTorch exports it, in int8, and under `torch.compile`.

    Args:
        dense: see `export_dense`.
        folder: where the files are written.
        threads: of one operator, while int8 is calibrated.
    """
    ours, arch = dense.metadata, dense.metadata.arch
    unfolded = dense_metadata(ours)
    assert dense.path is not None
    plain, int8 = _new(folder, "plain"), _new(folder, "int8")
    write_plainly(_model(ours), plain, ours.image_shape, ours.to_props())
    images = random_images(CALIBRATION_BATCH, ours.image_shape)
    to_int8(dense.path, int8, images, seven_bits=saturates_here(), threads=threads)
    spec = {
        "arch": arch,
        "classes": len(ours.class_names),
        "image_shape": ours.image_shape,
        "stem": ours.stem,
        "mean": ours.mean,
        "std": ours.std,
    }
    return [
        Reference(f"{arch} (torch.onnx.export)", unfolded, plain, plain),
        Reference(f"{arch} (dense int8)", replace(ours, precision="int8"), int8, int8),
        Reference(f"{arch} (torch.compile)", unfolded, None, Program("zoo.latency.compiled", json.dumps(spec))),
    ]


def _model(metadata: Metadata) -> nn.Module:
    classes, shape = len(metadata.class_names), metadata.image_shape
    backbone = create_backbone(
        metadata.arch, classes, shape, stem="original" if metadata.stem == "original" else "auto"
    )
    return with_normalization(backbone, metadata.mean, metadata.std).eval()


def _new(folder: Path, name: str) -> Path:
    return folder / f"{name}-{len(list(folder.iterdir()))}.onnx"
