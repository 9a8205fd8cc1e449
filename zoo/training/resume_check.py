"""Check that a resumed training has the recipe of its start."""

import dataclasses
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.runs.config import TrainConfig
from zoo.training.parts import Parts

FREE = {
    "data_dir", "download", "weights", "init", "teacher", "pretrained", "n", "compile", "cuda_graph", "precision",
    "device", "logger", "out", "trainer",
}  # fmt: skip
"""Keys that may differ in a resumed training: the machine, the paths of files, and the final evaluation."""
TEACHER = "teacher.sha256"
ADDED = {
    "monitor": "pgd", "stem": "auto", "balance": False, "augment": "light", "mean": None, "std": None,
    "test_fraction": None, "skip_corrupt": False, TEACHER: None,
}  # fmt: skip
"""Keys that checkpoints of earlier versions lack, with the values that those versions used."""


def recipe(config: TrainConfig, parts: Parts, teacher: str | None = None) -> dict[str, Any]:
    """Return the recipe of a checkpoint, by the keys of a configuration, for `check_same_recipe`.

    Args:
        config, parts: of the training.
        teacher: SHA-256 of its teacher's weights, whatever their path.
    """
    fixed = {key: value for key, value in dataclasses.asdict(config).items() if key not in FREE}
    fixed[TEACHER] = teacher
    plugins = {flag: options for flag, options in parts.named().items() if flag != "finish"}
    return fixed | {f"{flag}.{key}": value for flag, options in plugins.items() for key, value in options.items()}


def check_same_recipe(before: dict[str, Any], now: dict[str, Any], file: Path) -> None:
    """Compare the recipe of a checkpoint with that of the configuration beside it.

    Args:
        before: of the checkpoint; empty if it is from a version that saved none.
        now: of the configuration.
        file: of the configuration, for the message.

    Raises:
        UserError: a key has another value.
    """
    now = ADDED | now
    for key, value in (ADDED | before if before else {}).items():
        if now.get(key) != value:
            raise UserError(
                f"{file} has {key} {now.get(key)}, and its checkpoint was trained with {value}: "
                "put that back, or start a new run with another --out"
            )
