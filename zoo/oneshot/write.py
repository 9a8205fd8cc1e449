"""Write the RUN folder of a network that was compressed without training, whole or not at all."""

from pathlib import Path
from typing import Any

import torch
import yaml

from zoo.api import Compressed
from zoo.backbone import with_normalization
from zoo.evaluation import condition_numbers
from zoo.files import atomic_folder
from zoo.oneshot.config import CompressConfig
from zoo.oneshot.source import Source
from zoo.runs.description import describe
from zoo.runs.provenance import commit, hardware, versions
from zoo.runs.records import Evaluation, Provenance
from zoo.runs.run import CARD, CONFIG, Run, save_weights
from zoo.training.parts import Parts


def write(
    folder: Path,
    source: Source,
    compressed: Compressed,
    config: CompressConfig,
    command: str,
    device: torch.device,
    training: dict[str, Any],
    accuracy: Evaluation | None,
) -> Run:
    """Write weights, card and configuration.

    Args:
        folder: of the run; one that is there is replaced.
        source: what was compressed.
        compressed: the result, on the CPU.
        config: for the configuration, from which the commands that take a RUN read where the data are.
        command: the command line.
        device: that computed.
        training: what the card has in the place of a training's figures.
        accuracy: on test images; None without data.
    """
    task, method, parts = source.task, compressed.method, Parts(compressed.method)
    trained = with_normalization(compressed.model, task.mean, task.std).eval()
    with atomic_folder(folder.absolute()) as temporary:
        card = describe(
            task,
            method,
            method.deploy(trained).eval(),
            method.ranks(compressed.model),
            save_weights(trained, temporary),
            condition_numbers(trained),
            training=training,
            applied=parts.applied(),
            provenance=Provenance(
                command=command, seed=config.seed, commit=commit(), versions=versions(), hardware=hardware(device)
            ),
        )
        card.with_evaluations([accuracy] if accuracy is not None else []).save(temporary / CARD)
        text = yaml.safe_dump(_configuration(source, config, parts), sort_keys=False)
        (temporary / CONFIG).write_text(f"# {command}\n{text}", encoding="utf-8")
    return Run(folder)


def _configuration(source: Source, config: CompressConfig, parts: Parts) -> dict[str, Any]:
    """Return the recipe that says where the network comes from, in the keys of a training's."""
    task = source.task
    weights = config.weights.absolute() if config.weights is not None and config.weights.exists() else config.weights
    return {
        "arch": task.arch,
        "data": task.data,
        "data_dir": None if source.data_dir is None else str(source.data_dir.absolute()),
        "image_size": task.image_shape[1] if source.data is not None else None,
        "stem": task.stem,
        "weights": None if weights is None else str(weights),
        "pretrained": config.pretrained,
        "compression": config.compression,
        "rank_fraction": config.rank_fraction,
        "macs_reduction": config.macs_reduction,
        "seed": config.seed,
        "method": parts.named()["method"],
    }
