"""Estimate BatchNorm's statistics of a cut network on training images, attacked as in its training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.adversaries import ADVERSARIES, Adversary, Threat
from zoo.data import DataSet, open_known, training_rows
from zoo.errors import UserError
from zoo.runs.run import CARD, Run, read_config
from zoo.runtime.batch_norm import batch_norms, reestimate_batch_norm_, statistics_batches

IMAGES = 1024
BATCH = 128
VAL_FRACTION = 0.1
"""Share of the training images that counts as validation where no configuration says it."""


def recalibrate_(model: nn.Module, run: Run, data_dir: Path | None, download: bool, sizes: tuple[float, ...]) -> int:
    """Estimate the statistics, in place, and return on how many images; 0 without BatchNorms.

    Args:
        model: deployed, in eval mode; images in [0, 1] to logits.
        run: that it was cut from.
        data_dir, download: see `zoo.data.open_known`; None: the folder of the run's training.
        sizes: compressions that need no images, for the message.

    Raises:
        UserError: the images are not there.
    """
    if not batch_norms(model):
        return 0
    card = run.card
    try:
        data = open_known(
            card.data,
            data_dir=data_dir or run.data_dir,
            download=download,
            image_shape=card.image_shape,
            class_names=card.class_names,
        )
    except UserError as error:
        kept = ", ".join(f"{size:.3g}" for size in sizes)
        raise UserError(f"{error} (BatchNorm needs training images, except at the trained sizes {kept})") from None
    images = attacked_images(model, run, data)
    reestimate_batch_norm_(model, images)
    return sum(map(len, images))


def attacked_images(model: nn.Module, run: Run, data: DataSet, n: int = IMAGES) -> list[Tensor]:
    """Return batches of training images in [0, 1], attacked on a model as in a run's training.

    Args:
        model: in eval mode, on the CPU; images in [0, 1] to logits.
        run: whose adversary attacks.
        data: of the run.
        n: how many images, drawn evenly over the classes.
    """
    source = data.source(train=True)
    rows = training_rows(data, source.labels, n, val_fraction(run), seed=0)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    adversary, threat = adversary_of(run)
    batches = statistics_batches(rows, BATCH)
    parts = [(source.fetch(part).float().div(255), source.labels[part]) for part in batches]
    with torch.random.fork_rng(devices=[]):  # searches begin at random points
        torch.default_generator.manual_seed(0)
        return [adversary.search(model, images, labels, threat) for images, labels in parts]


def val_fraction(run: Run) -> float:
    """Return the share of the training images that a run's training kept for validation."""
    try:
        return float(read_config(run.folder).get("val_fraction", VAL_FRACTION))
    except UserError:  # a published model
        return VAL_FRACTION


def adversary_of(run: Run) -> tuple[Adversary, Threat]:
    """Return the adversary of a run's training, and its threat."""
    training = run.card.training
    options: dict[str, Any] = dict(training.get("adversary_options", {}))
    threat = {key: options.pop(key) for key in ("eps", "steps", "label_smoothing") if key in options}
    name = training.get("adversary", "none")
    return ADVERSARIES.saved(name, options, run.folder / CARD), Threat(**threat)
