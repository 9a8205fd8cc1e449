"""Compress a dense network without training it, estimate BatchNorm anew, and measure before and after."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.api import Compressed, compress
from zoo.backbone import with_normalization
from zoo.budget import Budget
from zoo.data import DataSet, stratified, training_rows
from zoo.errors import UserError
from zoo.evaluation import evaluate
from zoo.methods import METHODS, Method
from zoo.oneshot.config import CompressConfig
from zoo.oneshot.source import Source, open_source
from zoo.oneshot.write import write
from zoo.runs.records import Evaluation
from zoo.runs.run import Run
from zoo.runtime.batch_norm import reestimate_batch_norm_, statistics_batches
from zoo.screen import note
from zoo.training.folder import refuse_occupied

VAL_FRACTION = 0.1
"""Share of the training images that trainings keep for validation: nothing is calibrated on them here either."""
BATCH_NORM_IMAGES = 1024
"""Training images that BatchNorm's statistics are estimated on."""
BATCH = 128
DEFAULT_BUDGET = 0.8


@dataclass(frozen=True)
class Outcome:
    """The result of a compression.

    Attributes:
        run: the folder that was written.
        before: accuracy of the dense network; None without data.
        after: accuracy of the compressed one; None without data.
        seconds: that it took, without measuring.
    """

    run: Run
    before: Evaluation | None
    after: Evaluation | None
    seconds: float


def compress_checkpoint(
    arch: str, method: Method, config: CompressConfig, command: str = "", say: Callable[[str], None] = note
) -> Outcome:
    """Compress a checkpoint, and write a run.

    Args:
        arch: timm's name of the architecture.
        method: how; with data, one that is calibrated on training images gets them.
        config: what to compress, how far, and the data.
        command: the command line, for the card.
        say: told in a line what was done to the weights.

    Raises:
        UserError: the checkpoint, the data, the method or the budget do not fit together; nothing is written then.
    """
    folder = config.out or Path("runs") / f"{arch.replace('.', '_')}-{METHODS.name_of(method)}-oneshot"
    refuse_occupied(folder, config.overwrite)
    if config.data is None and method.calibrated_on is not None:
        raise UserError("--method.init outputs fits factors to training images: give --data, or --method.init weights")
    device = _device(config.device)
    start = time.monotonic()
    source = open_source(arch, config, say)
    compressed = _compressed(source, method, config, device)
    trained = with_normalization(compressed.model, source.task.mean, source.task.std).eval().to(device)
    if source.data is not None:
        batches = partial(_batches, source.data, BATCH_NORM_IMAGES, config.seed, device)
        reestimate_batch_norm_(trained, batches())
        method.calibrate(trained, batches)
    seconds = time.monotonic() - start
    before = after = None
    if source.data is not None:
        dense = with_normalization(source.model, source.task.mean, source.task.std).eval()
        images, labels = _test_images(source.data, config)
        before = _accuracy(dense.to(device), images, labels, config.seed)
        after = _accuracy(method.deploy(trained).eval(), images, labels, config.seed)
    written = replace(compressed, model=compressed.model.cpu())
    training = _training(seconds, source, method, before)
    run = write(folder, source, written, config, command, device, training, after)
    return Outcome(run, before, after, seconds)


def _compressed(source: Source, method: Method, config: CompressConfig, device: torch.device) -> Compressed:
    given = config.compression is not None or config.rank_fraction is not None
    budget = Budget(config.compression if given else DEFAULT_BUDGET, config.rank_fraction, config.macs_reduction)
    images = None
    if source.data is not None and method.calibrated_on is not None:
        found = torch.cat(list(_batches(source.data, method.calibrated_on.images, config.seed, device)))
        images = with_normalization(nn.Identity(), source.task.mean, source.task.std).to(device)(found)
    return compress(source.model.to(device), method, budget, input_shape=source.task.image_shape, images=images)


def _batches(data: DataSet, n: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Yield training images in [0, 1], drawn evenly over the classes."""
    source = data.source(train=True)
    rows = training_rows(data, source.labels, n, VAL_FRACTION, seed)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    for part in statistics_batches(rows, BATCH):
        yield source.fetch(part).to(device).float().div(255)


def _test_images(data: DataSet, config: CompressConfig) -> tuple[Tensor, Tensor]:
    source = data.source(train=False)
    rows = stratified(source.labels, config.n, config.seed)
    return source.fetch(rows), source.labels[rows]


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Evaluation:
    """Return the clean accuracy on uint8 images."""
    device = next(model.parameters()).device
    return evaluate(model, images, labels, (), device=device, progress=False)[0].model_copy(update={"seed": seed})


def _training(seconds: float, source: Source, method: Method, before: Evaluation | None) -> dict[str, Any]:
    """Return what takes the place of a training's figures on the card."""
    calibration = method.calibrated_on.images if method.calibrated_on is not None else 0
    return {
        "epochs": 0,
        "steps": 0,
        "precision": "32-true",
        "seconds": round(seconds, 1),
        "calibration_images": calibration,
        "batch_norm_images": BATCH_NORM_IMAGES if source.data is not None else 0,
        "test_images": (source.data.test_note or "the test split") if source.data is not None else "none",
        "normalization": source.normalization,
        "adversary": "none",
        "adversary_options": {},
        "dense_accuracy": None if before is None else before.accuracy,
    }


def _device(name: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise UserError("device cuda was asked for, but torch sees no CUDA device here: use --device cpu or auto")
    return torch.device("cuda" if cuda and name != "cpu" else "cpu")
