"""Measure a merged network, and write it as a run."""

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from zoo.attacks.pgd import PGD
from zoo.data import load_test
from zoo.evaluation import QUICK, Sweep, quick_evaluation
from zoo.files import atomic_folder
from zoo.merging.config import MergeConfig
from zoo.merging.form import Form
from zoo.runs.description import describe
from zoo.runs.provenance import commit, hardware, versions
from zoo.runs.records import Provenance
from zoo.runs.run import CARD, CONFIG, Run, save_weights
from zoo.runs.task import Task


def write(
    folder: Path,
    form: Form,
    trained: nn.Module,
    config: MergeConfig,
    eps: float,
    applied: list[dict[str, Any]],
    training: dict[str, Any],
    command: str,
    device: torch.device,
) -> Run:
    """Measure the merged network on test images, and write weights, card and configuration, all or nothing.

    Args:
        folder: of the run.
        form: of the network.
        trained: the network, in eval mode.
        config: of the merge.
        eps: radius of the PGD that is measured besides the quick evaluation.
        applied: the merge, for the card.
        training: what the card says in the place of a training's figures.
        command: the command line, for the card.
        device: where to measure.
    """
    card, method = form.run.card, form.method
    deployed = method.deploy(trained.cpu()).eval()
    data_dir = config.data_dir or form.run.data_dir
    images, labels = load_test(
        card.data,
        data_dir=data_dir,
        download=False,
        image_shape=card.image_shape,
        class_names=card.class_names,
        n=config.n,
    )
    sweeps = (*QUICK, Sweep(PGD(steps=20), (eps,)))
    result = quick_evaluation(deployed, trained, images, labels, sweeps, device=device)
    task = Task(card.arch, card.stem, card.data, card.image_shape, card.mean, card.std, card.class_names)
    with atomic_folder(folder.absolute()) as temporary:
        written = describe(
            task,
            method,
            deployed.cpu(),
            form.ranks,
            save_weights(trained, temporary),
            result.condition_numbers,
            training=training,
            applied=applied,
            provenance=Provenance(
                command=command, seed=0, commit=commit(), versions=versions(), hardware=hardware(device)
            ),
        )
        measured = {"evaluations": tuple(result.evaluations), "sanity": result.sanity}
        measured |= {"calibration": result.calibration, "lipschitz_bound": result.lipschitz_bound}
        written.model_copy(update=measured).save(temporary / CARD)
        recipe = {
            "arch": card.arch,
            "data": card.data,
            "data_dir": None if data_dir is None else str(data_dir.absolute()),
            "stem": card.stem,
            "seed": 0,
            "method": {"name": written.method, **written.method_options},
        }
        (temporary / CONFIG).write_text(f"# {command}\n{yaml.safe_dump(recipe, sort_keys=False)}", encoding="utf-8")
    return Run(folder)
