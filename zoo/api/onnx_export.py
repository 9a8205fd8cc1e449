"""Write a model of your own as ONNX, as `zoo export` does for a run."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from zoo._version import __version__
from zoo.api._checks import Shape, check_takes
from zoo.api.compression import Compressed, deploy
from zoo.data import data_class
from zoo.errors import UserError
from zoo.export.exporter import Exported, export_model
from zoo.export.settings import ExportSettings
from zoo.export.target import TargetName
from zoo.files import user_path
from zoo.methods import METHODS
from zoo.runs.file_metadata import Metadata
from zoo.runtime.complexity import count_macs, count_params
from zoo.runtime.eval_mode import require_eval_mode


def export_onnx(
    model: nn.Module | Compressed,
    path: str | Path,
    input_shape: Shape | None = None,
    class_names: Sequence[str] | None = None,
    *,
    data: str = "",
    target: TargetName = "generic",
) -> Exported:
    """Write a classifier as ONNX, BatchNorm and S folded, and compare its logits with PyTorch's.

    The file maps ``images`` (batch, C, H, W) in [0, 1] to ``logits`` (batch, classes), for any batch, and ``zoo bench
    FILE`` measures it: its times, and with ``data`` its accuracy; there is no dense backbone to set beside it, since
    zoo cannot build the architecture by a name. In the file's metadata, whatever zoo does not know is empty: the
    command that trained the weights, and the data set unless it is given. Mean 0 and std 1 are written there, because a
    normalisation, if there is one, is part of the model. Without a `Compressed` the model counts as uncompressed.

    Args:
        model: in eval mode; factorized layers are written in their deployed form. It is not changed.
        path: the file; an older one is replaced once the new one has passed.
        input_shape: (channels, height, width); None: that of a `Compressed`.
        class_names: the name of each logit; None: ``class 0``, ``class 1``, ...
        data: name of the data set of zoo that the model was trained on, for ``zoo bench``.
        target: ``cpu`` or ``cuda`` of this machine: the forms of factorized layers are timed; ``generic``: estimated.

    Raises:
        UserError: the model is in training mode, does not take such images, has another number of classes than names,
            cannot be exported, or the file's logits differ.

    Examples:
        >>> import tempfile, torch, zoo
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = zoo.export_onnx(net, f"{folder}/net.onnx", (1, 8, 8), ["cat", "dog", "owl"])
        >>> file.params, file.metadata.class_names
        (195, ('cat', 'dog', 'owl'))
    """
    compressed = model if isinstance(model, Compressed) else None
    network = model.model if isinstance(model, Compressed) else model
    shape = input_shape or (compressed.input_shape if compressed else None)
    if shape is None:
        raise UserError("an export needs the images' input_shape (channels, height, width), such as (3, 32, 32)")
    if data:
        data_class(data)
    require_eval_mode(network, "an export")
    deployed = deploy(network).cpu()
    classes = check_takes(deployed, shape)
    names = tuple(f"class {i}" for i in range(classes)) if class_names is None else tuple(class_names)
    if len(names) != classes:
        raise UserError(f"the model has {classes} classes, class_names {len(names)}: give one name for each logit")
    metadata = _metadata(network, deployed, shape, names, data, compressed)
    return export_model(deployed, metadata, user_path(path), ExportSettings(target=target))


def _metadata(
    network: nn.Module,
    deployed: nn.Module,
    shape: Shape,
    names: tuple[str, ...],
    data: str,
    compressed: Compressed | None,
) -> Metadata:
    """Return the metadata of a model that zoo has not trained."""
    params, macs, channels = count_params(deployed), count_macs(deployed, shape), shape[0]
    kind = type(network)
    known = compressed is not None and compressed.dense_macs is not None and shape == compressed.input_shape
    return Metadata(
        zoo_version=__version__,
        arch=f"{kind.__module__}.{kind.__qualname__}",
        method=METHODS.name_of(compressed.method) if compressed else "dense",
        data=data,
        image_shape=shape,
        class_names=names,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        params=params,
        macs=macs,
        dense_params=compressed.dense_params if compressed else params,
        dense_macs=compressed.dense_macs if compressed and known and compressed.dense_macs else macs,
        ranks=compressed.method.ranks(network) if compressed else {},
        weights_sha256=_fingerprint(deployed),
        training="",
        commit="",
    )


def _fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of the names and values of a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
