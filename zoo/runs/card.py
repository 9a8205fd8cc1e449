"""The card of a trained model: its description, its provenance, and every figure measured on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from zoo.errors import UserError
from zoo.files import atomic
from zoo.runs.calibration import Calibration
from zoo.runs.detection import Detection
from zoo.runs.records import (
    CurvePoint,
    Doubt,
    Evaluation,
    Finding,
    LayerRow,
    Prefix,
    Provenance,
    Record,
    Sanity,
    StoredFile,
    Threat,
    Timing,
    Weights,
)  # fmt: skip
from zoo.runs.schema import first_mistake, refuse_newer

SCHEMA = 6
"""Version of the card's schema, raised when fields come or change; cards of every earlier one can be read."""


class Card(Record):
    """All data of a model.

    ``params`` and ``macs`` are those of the deployed form (S folded). ``applied`` lists the plugins that were applied,
    in order: each with its kind, its name, its hyper-parameters, and its outcome if that is more than the weights.
    ``curve`` lists the smaller networks inside a nested one, ``prefixes`` how much of the stored weights each needs.
    ``zoo publish`` fills in what a hub needs besides: name, licence, threat, data_sha256 (of the test split), latency,
    parity (largest relative difference of the exported file's logits, by batch size), files (those besides card, README
    and weights) and commands (the command that repeats each measurement).
    """

    schema_version: int = Field(default=SCHEMA, ge=1, le=SCHEMA)
    name: str | None = None
    licence: str | None = None
    arch: str
    method: str
    method_options: dict[str, Any]
    data: str
    data_sha256: str | None = None
    image_shape: tuple[int, int, int]
    stem: Literal["auto", "original"] = "auto"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    ranks: dict[str, int]
    params: int
    dense_params: int = Field(ge=1)
    macs: int
    dense_macs: int
    layers: tuple[LayerRow, ...]
    max_condition_number: float | None
    lipschitz_bound: float | None = None
    applied: tuple[dict[str, Any], ...] = ()
    training: dict[str, Any]
    threat: Threat | None = None
    evaluations: tuple[Evaluation, ...] = ()
    sanity: Sanity | None = None
    calibration: Calibration | None = None
    detection: tuple[Detection, ...] = ()
    findings: tuple[Finding, ...] = ()
    latency: tuple[Timing, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    parity: dict[str, float] = Field(default_factory=dict)
    weights: Weights
    prefixes: tuple[Prefix, ...] = ()
    files: tuple[StoredFile, ...] = ()
    provenance: Provenance
    commands: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> "Card":
        if len(self.mean) != self.image_shape[0] or len(self.std) != self.image_shape[0]:
            raise ValueError(f"mean and std have {len(self.mean)} and {len(self.std)} channels, image_shape others")
        try:
            _ = self.threat_model
        except (AttributeError, ValueError):
            raise ValueError("training.adversary_options has no radius under eps") from None
        return self

    @property
    def compression(self) -> float:
        """Share of the dense model's parameters that was removed."""
        return 1 - self.params / self.dense_params

    @property
    def gradient_masking(self) -> bool:
        """Whether a check failed, so that accuracies under attack are not credible."""
        return self.sanity is not None and bool(self.sanity.failures)

    @property
    def uninformative(self) -> bool:
        """Whether the network answers as one that learned nothing, so that its accuracies say nothing."""
        return self.sanity is not None and bool(self.sanity.uninformative)

    @property
    def held_out(self) -> str:
        """What the test images are, in words, if they were held out of the training images; otherwise ``""``."""
        note = str(self.training.get("test_images", ""))
        return note if note.startswith("held-out") else ""

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why the accuracies are not credible; empty if no check failed, or none was made."""
        return self.sanity.doubts if self.sanity else ()

    @property
    def clean(self) -> Evaluation | None:
        """Accuracy on clean images."""
        return next((e for e in self.evaluations if e.norm is None), None)

    @property
    def threat_model(self) -> Threat | None:
        """The model's threat model: the one it was trained against, or the largest Linf radius searched."""
        if self.threat is not None:
            return self.threat
        trained_for = self.training.get("adversary_options", {}).get("eps")
        if trained_for is not None and self.training.get("adversary") != "none":
            return Threat(norm="Linf", eps=trained_for)
        largest = max((e.eps for e in self.evaluations if e.norm == "Linf"), default=None)
        return None if largest is None else Threat(norm="Linf", eps=largest)

    def with_evaluations(self, new: list[Evaluation]) -> "Card":
        """Return the card with evaluations added.

        An evaluation with the same attack, norm, eps and options is replaced, unless it was measured on more images.
        """

        return self.model_copy(update={"evaluations": merged_evaluations(self.evaluations, new)})

    def with_curve_point(self, point: CurvePoint) -> "Card":
        """Return the card with a point of the curve added, merged with an earlier one of the same network."""
        points = {(p.compression, p.params): p for p in self.curve}
        if old := points.get((point.compression, point.params)):
            merged: dict[str, Any] = {"evaluations": merged_evaluations(old.evaluations, point.evaluations)}
            if point.latency_ms is None:
                merged |= {"latency_ms": old.latency_ms, "hardware": old.hardware}
            point = point.model_copy(update=merged)
        points[point.compression, point.params] = point
        return self.model_copy(update={"curve": tuple(points[key] for key in sorted(points))})

    def with_detection(self, new: list[Detection]) -> "Card":
        """Return the card with the detection of another data set; it replaces earlier figures of the same one."""
        measured = {found.data for found in new}
        kept = [found for found in self.detection if found.data not in measured]
        return self.model_copy(update={"detection": (*kept, *new)})

    def with_findings(self, new: list[Finding]) -> "Card":
        """Return the card with a probe's figures; they replace all earlier ones of the same probe."""
        probes = {finding.probe for finding in new}
        kept = [finding for finding in self.findings if finding.probe not in probes]
        return self.model_copy(update={"findings": (*kept, *new)})

    def save(self, path: Path) -> None:
        """Write the card as JSON, whole or not at all."""
        current = self.model_copy(update={"schema_version": SCHEMA})
        with atomic(path) as temporary:
            temporary.write_text(current.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Card":
        """Read a card.

        Raises:
            UserError: the file is not a card, or one of a newer schema.
        """
        try:
            text = path.read_text(encoding="utf-8")
            refuse_newer(text, SCHEMA, str(path))
            return cls.model_validate_json(text)
        except (ValidationError, UnicodeDecodeError) as error:
            reason = first_mistake(error) if isinstance(error, ValidationError) else str(error)
            advice = "train again, or pip install --upgrade robust-zoo"
            raise UserError(f"{path} is not a card of schema {SCHEMA} ({reason}): {advice}") from None


def merged_evaluations(old: Sequence[Evaluation], new: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Return old and new figures together, see `Card.with_evaluations`; the clean accuracy comes first."""

    def key(e: Evaluation) -> tuple[object, ...]:
        return e.attack, e.norm, e.eps, repr(sorted(e.options.items()))

    merged = {key(e): e for e in old}
    for e in new:
        if key(e) not in merged or e.n >= merged[key(e)].n:
            merged[key(e)] = e
    return tuple(sorted(merged.values(), key=lambda e: (e.attack != "clean", e.attack, e.norm or "", e.eps)))
