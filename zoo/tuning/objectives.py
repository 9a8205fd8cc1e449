"""What a sweep looks for: accuracies on validation images, size, and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import timm
import torch
from filelock import FileLock
from torch import Tensor

from zoo.attacks import ATTACKS
from zoo.bench.baselines import export_dense
from zoo.data import train_val
from zoo.errors import UserError, unknown_name
from zoo.evaluation import Sweep, evaluate, folded
from zoo.export.exporter import ONNX_FILE, export_model
from zoo.export.settings import ExportSettings
from zoo.files import cache_folder
from zoo.latency.measure import measure
from zoo.runs.config import TrainConfig
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run
from zoo.training.build import open_config_data

if TYPE_CHECKING:
    from optuna.study import Study

CLEAN, PARAMETERS, MACS, LATENCY = "clean", "parameters", "macs", "latency"
Direction = Literal["maximize", "minimize"]
COSTS = (PARAMETERS, MACS, LATENCY)
"""Objectives that are minimised; the others are accuracies, which are maximised."""
DENSE_MS = "dense_ms"
"""Attribute of the study: milliseconds of the dense network where a file was timed first."""
ROUNDS, SECONDS = 20, 0.02
"""Turns in which a file and the dense network are timed, and the length of a turn."""


def objective_names() -> list[str]:
    """Return the names of all objectives."""
    return [CLEAN, *(name for name in ATTACKS.names() if "Linf" in ATTACKS.get(name).norms), *COSTS]


def parse_objectives(text: str) -> tuple[str, ...]:
    """Read objectives separated by commas.

    Raises:
        UserError: there is none, or one is unknown or named twice.
    """
    names = [word.strip() for word in text.split(",") if word.strip()]
    if not names or len(set(names)) < len(names):
        raise UserError(f"--objective {text}: name each objective once, separated by commas, such as cr,latency")
    for name in names:
        if name not in objective_names():
            raise unknown_name("objective", name, objective_names())
    return tuple(names)


@dataclass(frozen=True)
class TrialEvaluator:
    """Measures finished trials by the objectives of a sweep, all in the same way.

    Attributes:
        objectives: their names.
        config: of the recipe: its data, its validation split, and the radius of attacks.
        n: validation images, at most.
        threads: of ONNX Runtime for the latency.
    """

    objectives: tuple[str, ...]
    config: TrainConfig
    n: int
    threads: int

    @property
    def attacks(self) -> list[str]:
        """The objectives that are accuracies under attack."""
        return [name for name in self.objectives if name not in (CLEAN, *COSTS)]

    def check(self) -> None:
        """Check that every objective can be measured, before any training.

        Raises:
            UserError: the data are not there, none of them is for validation, or there is no dense network to time.
        """
        if LATENCY in self.objectives and not timm.is_model(self.config.arch.partition(".")[0]):
            raise UserError(f"--objective latency: {self.config.arch} is none of timm's, so no dense network is timed")
        if set(self.objectives) - set(COSTS):
            self.images()

    def images(self) -> tuple[Tensor, Tensor]:
        """Return the validation images, uint8 (n, C, H, W), and their labels.

        Raises:
            UserError: the data are not there, or none is kept for validation.
        """
        source = open_config_data(self.config).source(train=True)
        rows = train_val(source.labels, self.config.val_fraction)[1][: self.n]
        if not len(rows):
            raise UserError("val-fraction leaves no validation images, on which accuracies are measured: raise it")
        return source.fetch(rows), source.labels[rows]

    def measure(self, run: Run, study: Study) -> list[float]:
        """Return the values of the objectives for a finished run."""
        found = {PARAMETERS: float(run.card.params), MACS: float(run.card.macs)}
        if LATENCY in self.objectives:
            found[LATENCY] = self._milliseconds(run, study)
        if set(self.objectives) - set(COSTS):
            found |= self._accuracies(run)
        return [found[name] for name in self.objectives]

    def _accuracies(self, run: Run) -> dict[str, float]:
        images, labels = self.images()
        device = "cuda" if torch.cuda.is_available() and self.config.device != "cpu" else "cpu"
        model = folded(run.model(), run.card.image_shape)
        sweeps = [Sweep(ATTACKS.get(name)(), (self.config.threat.eps,)) for name in self.attacks]
        evaluations = evaluate(model, images, labels, sweeps, device=device)
        return {e.attack: e.accuracy for e in evaluations}

    def _milliseconds(self, run: Run, study: Study) -> float:
        """Return the median time at batch 1 on a CPU, in units of the study's first timing of the dense network.

        Other processes of the sweep keep the machine busy, so the file and the dense network are timed in turns, and
        only their ratio counts. For the same reason the form of each layer is chosen by the cost model.
        """
        metadata = Metadata.of(run.card)
        with TemporaryDirectory() as folder, FileLock(_timing_lock()):
            file, dense = Path(folder) / ONNX_FILE, export_dense(metadata, Path(folder)).path
            assert dense is not None
            export_model(run.model(), metadata, file, ExportSettings(target="generic", threads=self.threads))
            timings = measure(
                [file, dense], device="cpu", threads=self.threads, batches=(1,), rounds=ROUNDS, seconds=SECONDS
            )
        ours, reference = (timing.latency[1] for timing in timings)
        if DENSE_MS not in study.user_attrs:
            study.set_user_attr(DENSE_MS, reference.median_ms)
        return ours.ratio_to(reference) * float(study.user_attrs[DENSE_MS])


def _timing_lock() -> Path:
    """Return a file that one process of this machine locks while it times."""
    path = cache_folder() / "timing.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def is_accuracy(name: str) -> bool:
    """Return whether an objective is an accuracy, in 0..1 and maximised."""
    return name not in COSTS


def directions(objectives: Sequence[str]) -> list[Direction]:
    """Return Optuna's direction for each objective."""
    return ["maximize" if is_accuracy(name) else "minimize" for name in objectives]
