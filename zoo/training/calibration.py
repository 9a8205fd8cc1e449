"""Training images to which the starting factors are fitted, and on which statistics are estimated at the end."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.adversaries import Adversary
from zoo.adversaries.none import NoAdversary
from zoo.backbone import with_normalization
from zoo.data import DataSet, stratified, training_rows
from zoo.errors import UserError
from zoo.lowrank.output_fit import fit_to_outputs_
from zoo.methods import Calibration
from zoo.runs.config import TrainConfig
from zoo.runtime.batch_norm import statistics_batches
from zoo.runtime.eval_mode import evaluating
from zoo.training.options import trains_on_cuda

if TYPE_CHECKING:
    from zoo.training.module import Classifier

FINAL_IMAGES = 1024
"""Training images on which statistics are estimated when a training has ended."""


def fit_to_training_images_(
    model: nn.Module,
    dense: nn.Module,
    calibration: Calibration,
    config: TrainConfig,
    data: DataSet,
    adversary: Adversary | None,
) -> None:
    """Fit a converted backbone's factors to the dense one's outputs on training images, in place.

    The images are drawn evenly over the classes by the run's seed, none of them for validation, and are not augmented.

    Args:
        model: converted from the dense backbone; on the CPU, before and after.
        dense: the backbone with its starting weights.
        calibration: which images.
        config: the recipe.
        data: what is trained on.
        adversary: what is trained against.

    Raises:
        UserError: attacked images are requested without an adversary, or the backbone's outputs are not finite.
    """
    if calibration.adversarial and (adversary is None or isinstance(adversary, NoAdversary)):
        raise UserError("--method.calibration adversarial takes the images of an adversary: give --adversary, or clean")
    source = data.source(train=True)
    rows = training_rows(data, source.labels, calibration.images, config.val_fraction, config.seed)
    device = torch.device("cuda" if trains_on_cuda(config) else "cpu")
    original, factorized = (with_normalization(x, data.mean, data.std).to(device) for x in (dense, model))
    images = source.fetch(rows).float().div(255)
    if calibration.adversarial:
        assert adversary is not None
        with evaluating(original):
            batches = [x.split(config.batch_size) for x in (images.to(device), source.labels[rows].to(device))]
            found = [adversary.search(original, x, y, config.threat) for x, y in zip(*batches, strict=True)]
        images = torch.cat(found)
    fit_to_outputs_(factorized, original, images)
    factorized.to("cpu")


def attacked_batches(module: "Classifier") -> Iterator[Tensor]:
    """Yield training images in [0, 1], not augmented, attacked as in the training on the model as it is now."""
    source, threat = module.source, module.config.threat
    labels = source.labels[module.train_indices.to(source.labels.device)].cpu()
    rows = module.train_indices[stratified(labels, FINAL_IMAGES, seed=0)]
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))].to(source.labels.device)
    torch.manual_seed(module.config.seed)
    for part in statistics_batches(rows, module.config.batch_size):
        images = source.fetch(part).float().div(255)
        yield module.adversary.search(module.model, images, source.labels[part], threat)
