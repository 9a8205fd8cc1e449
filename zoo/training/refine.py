"""Apply a finisher to a finished run."""

from functools import partial
from pathlib import Path

import torch

from zoo.runs.config import TrainConfig
from zoo.runs.run import Run
from zoo.training.build import open_config_data
from zoo.training.calibration import attacked_batches
from zoo.training.finalize import write_run
from zoo.training.fine_tuning import trained_network
from zoo.training.folder import prepare, refuse_occupied
from zoo.training.module import Classifier
from zoo.training.options import trains_on_cuda
from zoo.training.parts import Parts
from zoo.training.trainer import quieten


def refine(
    run: Run,
    config: TrainConfig,
    parts: Parts,
    folder: Path,
    command: str,
    *,
    overwrite: bool = False,
) -> Run:
    """Apply a finisher to a run's network, and return the result as a new run.

    Args:
        run: finished; it is not changed.
        config: as read from its ``config.yaml``.
        parts: read from it too, except the finisher, which is applied.
        folder: of the new run.
        command: the command line, for the card.
        overwrite: replace a run that is already in the folder.

    Raises:
        UserError: the folder is taken; nothing is written then.
    """
    quieten()
    refuse_occupied(folder, overwrite)
    data = open_config_data(config)
    device = torch.device("cuda" if trains_on_cuda(config) else "cpu")
    module = Classifier(run.trained_model(), parts, data, data.source(train=True).to(device), config)
    outcome = parts.finisher.refine(trained_network(module.to(device).eval()))
    parts.method.calibrate(module.model, partial(attacked_batches, module))
    applied = [*run.card.applied, parts.applied(finish=outcome)[-1]]
    prepare(folder, config, parts)
    return write_run(folder, module, device, run.card.training, applied, command)
