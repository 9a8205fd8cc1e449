"""Export a deployed model: fold, write, compare, and only then put the file in its place."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from zoo.errors import UserError
from zoo.export.choice import Choices, choose_forms
from zoo.export.precision_cost import AccuracyChange, accuracy_changes, calibration_images, check_drop
from zoo.export.runtime_parity import Files, check_precision, in_runtime
from zoo.export.settings import ExportSettings
from zoo.export.target import Target, open_target
from zoo.export.whole_graph import CHOSEN, Ratios, compare, fastest, overruled
from zoo.export.writer import GraphWriter, Written, copy_with
from zoo.files import atomic
from zoo.latency.session import OnnxModel
from zoo.latency.time_limit import TimeLimit
from zoo.runs.file_metadata import Metadata
from zoo.runtime.eval_mode import require_eval_mode
from zoo.runtimes import DEFAULT, RUNTIMES

ONNX_FILE = "model.onnx"
"""Name of the exported file in a RUN folder."""
GENERIC = ExportSettings(target="generic")
"""The default target, which measures nothing: it gives the same file on every machine."""


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path: the file.
        bytes: its size.
        written: its contents, and how its logits compare with PyTorch's.
        metadata: of the file.
        choices: the form of each factorized layer.
        graphs: times of whole graphs, see `zoo.export.whole_graph`; empty if they were not compared.
        changes: accuracies in fp32 and in the precision written; empty for fp32.
        time_limit: in seconds, of the measurements.
        uncompared: batch sizes at which whole graphs were not compared, as the time limit was over.
        artefact: content of the runtime's own files by suffix; empty if it reads the ONNX file.
        runtime_parity: largest difference of its logits from ONNX Runtime's, relative to the largest; None for that.
    """

    path: Path
    bytes: int
    written: Written
    metadata: Metadata
    choices: Choices
    graphs: Ratios
    changes: tuple[AccuracyChange, ...]
    time_limit: float = math.inf
    uncompared: tuple[int, ...] = ()
    artefact: Files = field(default_factory=dict)
    runtime_parity: float | None = None

    @property
    def estimated(self) -> list[str]:
        """Layers whose form was estimated, as the time limit was over."""
        return [name for name, choice in self.choices.items() if choice.is_estimated]

    def beside(self, suffix: str) -> Path:
        """Return the path of the runtime's own file with a suffix, such as ``model.ncnn.param`` for ``.ncnn.param``."""
        stem = self.path.name.removesuffix(".onnx").removesuffix(f".{self.metadata.runtime}")
        named = suffix if suffix.startswith(f".{self.metadata.runtime}") else f".{self.metadata.runtime}{suffix}"
        return self.path.with_name(stem + named)

    @property
    def params(self) -> int:
        """Parameters in the file."""
        return self.written.params

    @property
    def factorized(self) -> int:
        """Layers that the file holds as two."""
        return self.written.factorized

    @property
    def parity(self) -> dict[int, float]:
        """Largest relative difference of logits, by batch size."""
        return self.written.parity


def export_model(
    model: nn.Module,
    metadata: Metadata,
    path: Path,
    settings: ExportSettings = GENERIC,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write a model as ONNX and compare it with PyTorch; a file that fails is not left behind.

    Args:
        model: the deployed model in eval mode, on the CPU; images in [0, 1] to logits.
        metadata: to write into the file.
        path: the file; an older one is replaced once the new one has passed.
        settings: target and precision.
        say: called with a line on each stage.

    Raises:
        UserError: the model cannot be exported or has weights that are not numbers, its logits differ, also in the
            runtime that it is for, it loses too much accuracy, or there is no such target or runtime here.
    """
    runtime = RUNTIMES.get(settings.runtime)()
    version = "" if settings.runtime == DEFAULT else runtime.version()
    check_precision({settings.runtime: runtime}, path, settings.precision)
    require_eval_mode(model, "an export")
    _check_finite(model)
    target = open_target(settings.target, settings.threads, TimeLimit(settings.time_limit), settings.runtime)
    images = calibration_images(metadata, settings) if settings.precision == "int8" else None
    metadata = replace(
        metadata,
        target=target.name,
        precision=settings.precision,
        runtime=settings.runtime,
        runtime_version=version,
    )
    with atomic(path) as temporary, TemporaryDirectory() as folder:
        write = GraphWriter(model, metadata, Path(folder), images, settings.threads)
        choices = choose_forms(model, metadata.image_shape, target, say)
        choices, graphs, uncompared = _hold_up_together(choices, target, write, say)
        say("writing")
        written = write({name: choice.form for name, choice in choices.items()})
        metadata = replace(
            metadata,
            forms={name: choice.to_dict() for name, choice in choices.items()},
            graph_params=written.params,
            graph_macs=written.macs,
        )
        copy_with(written.path, temporary, metadata)
        changes: list[AccuracyChange] = []
        if settings.precision != "fp32":
            say(f"accuracy in {settings.precision}")
            after = OnnxModel(temporary, target.device, target.threads)
            changes = accuracy_changes(OnnxModel(written.full, "cpu", target.threads), after, model, settings)
            check_drop(changes, settings.max_drop, settings.precision)
        artefact: Files = {}
        parity = None
        if settings.runtime != DEFAULT:
            say(f"checking the answers in {settings.runtime}")
            artefact, parity = in_runtime(settings.runtime, replace(written.source, file=temporary), target.threads)
        size = temporary.stat().st_size
    return Exported(
        path,
        size,
        written,
        metadata,
        choices,
        graphs,
        tuple(changes),
        settings.time_limit,
        uncompared,
        artefact,
        parity,
    )


def _check_finite(model: nn.Module) -> None:
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        more = f" (and {len(broken) - 1} more)" if broken[1:] else ""
        raise UserError(
            f"{broken[0]} holds values that are not finite{more}: its "
            "training has diverged; train again, perhaps with a smaller --lr"
        )


def _hold_up_together(
    choices: Choices, target: Target, write: GraphWriter, say: Callable[[str], None]
) -> tuple[Choices, Ratios, tuple[int, ...]]:
    """Compare the chosen graph with others of the same model; return the choices of the one to write."""
    if not target.is_measured:
        return choices, {}, ()
    ratios, uncompared = compare(choices, write, target, say=say)
    best = fastest(ratios) if ratios else CHOSEN
    return (choices if best == CHOSEN else overruled(choices, best, ratios, target.block)), ratios, uncompared
