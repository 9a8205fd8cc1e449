"""Make the folder of a nested run without training, for tests."""

from pathlib import Path

import torch
from make_run import make_run

from zoo.constraints import OrderedSpectrum
from zoo.lowrank.sizes import sizes_of, start_statistics_
from zoo.runs.run import Run, save_weights


def make_nested_run(folder: Path) -> Run:
    """Write a nested run whose sizes have statistics of their own, as after a training."""
    run = make_run(folder, method="nested_lowrank")
    trained = run.trained_model()
    OrderedSpectrum(0.1).project_(trained)
    start_statistics_(trained)
    sizes = sizes_of(trained)[1]
    with torch.no_grad():
        for i in range(len(sizes)):
            sizes.statistics(i)[0].add_(0.01 * (i + 1))
    run.save_card(run.card.model_copy(update={"weights": save_weights(trained, run.folder)}))
    return run
