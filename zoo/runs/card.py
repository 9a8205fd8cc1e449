"""The card of a trained model: its description, its provenance, and every figure measured on it."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from zoo.errors import UserError
from zoo.files import atomic

SCHEMA = 4
"""Version of the card's schema, raised when fields come or change; cards of every earlier one can be read."""


class _Record(BaseModel):
    # JSON has no infinity: the condition number of a singular layer is written as the string "Infinity".
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Evaluation(_Record):
    """One measured accuracy.

    Attributes:
        attack: ``clean``, ``fgsm``, ``pgd``, ...
        norm: of the perturbation; None for clean accuracy.
        eps: the perturbation's radius in pixel units of [0, 1].
        accuracy: share of images classified correctly, in 0..1.
        n: how many test images.
        seed: of their draw.
        options: the attack's other settings, such as steps and restarts.
        parts: for an ensemble of attacks, the accuracy after each one.
        skipped: parts that the model cannot be attacked with, and why.
    """

    attack: str
    norm: Literal["Linf", "L2"] | None
    eps: FiniteFloat = Field(ge=0, le=1e6)
    accuracy: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    seed: int = 0
    options: dict[str, Any] = {}
    parts: dict[str, float] = {}
    skipped: dict[str, str] = {}

    @field_validator("options")
    @classmethod
    def _can_be_written(cls, options: dict[str, Any]) -> dict[str, Any]:
        json.dumps(options, allow_nan=False)  # a ValueError if a number is infinite
        return options


class Finding(_Record):
    """One figure of a probe; see `zoo.probes`.

    Attributes:
        probe: its name.
        case: its conditions.
        accuracy: share of images classified correctly, in 0..1, or for ``interval`` and ``lipschitz`` proved to be;
            None: the probe does not apply.
        n: how many test images.
        note: why it does not apply, or ``""``.
    """

    probe: str
    case: dict[str, str | float]
    accuracy: float | None = Field(ge=0, le=1)
    n: int
    note: str = ""


class Sanity(_Record):
    """The sanity checks of accuracies under attack; see `zoo.evaluation.sanity`.

    That adversarial images lie within eps and in [0, 1], and that verdicts come from a fresh forward pass on
    them, needs no check here: an attack that breaks either is stopped.

    Attributes:
        failures: names of failed checks; any of them means that gradients are masked.
        uninformative: signs that the network learned nothing; see `zoo.evaluation.informative`.
        zero_gradient_share: share of probed images whose loss has no gradient at all.
        accuracy_at_large_eps: under PGD at a radius where nothing can be recognized.
        n: images probed.
    """

    failures: tuple[str, ...]
    uninformative: tuple[str, ...] = ()
    zero_gradient_share: float
    accuracy_at_large_eps: float
    n: int


class Threat(_Record):
    """The threat model: perturbations up to ``eps`` in pixels of [0, 1]."""

    norm: Literal["Linf", "L2"]
    eps: FiniteFloat = Field(ge=0, le=1e6)


class Timing(_Record):
    """Time of the exported file in ONNX Runtime, see `zoo.latency.measure`.

    Attributes:
        batch: images per run.
        median_ms: milliseconds per run.
        p95_ms: 95th percentile.
        n: timed runs.
        ratio_to_dense: over the time of the uncompressed backbone, measured in turns with it.
        provider: ONNX Runtime's name of the provider that ran it.
        threads: of one operator.
        hardware: in words.
    """

    batch: int
    median_ms: FiniteFloat
    p95_ms: FiniteFloat
    n: int
    ratio_to_dense: FiniteFloat
    provider: str
    threads: int
    hardware: str


class StoredFile(_Record):
    """A file beside the card: its name (never a path), SHA-256 and size."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")
    sha256: str
    bytes: int


class Weights(StoredFile):
    """The file that holds the weights; ``dtype`` is that of its matrices and kernels."""

    dtype: Literal["float32", "float16"] = "float32"


class LayerRow(_Record):
    """One linear or convolution layer: weight shape, rank (None: dense), why, and its condition number."""

    name: str
    kind: str
    shape: tuple[int, ...]
    rank: int | None
    note: str
    condition_number: float | None


class Provenance(_Record):
    """The provenance of a model."""

    command: str
    seed: int
    commit: str | None
    versions: dict[str, str]
    hardware: str


class Card(_Record):
    """All data of a model.

    ``params`` and ``macs`` are those of the deployed form (S folded). ``applied`` lists the plugins that were applied,
    in order: each with its kind, its name, its hyper-parameters, and its outcome if that is more than the weights.
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
    findings: tuple[Finding, ...] = ()
    latency: tuple[Timing, ...] = ()
    parity: dict[str, float] = {}
    weights: Weights
    files: tuple[StoredFile, ...] = ()
    provenance: Provenance
    commands: dict[str, str] = {}

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
    def doubts(self) -> tuple[str, ...]:
        """In words, why accuracies under attack are not to be believed, if they are not."""
        found = self.sanity
        kinds = {"gradient masking": found.failures, "uninformative": found.uninformative} if found else {}
        return tuple(f"{kind} ({', '.join(signs).replace('_', ' ')})" for kind, signs in kinds.items() if signs)

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

        def key(e: Evaluation) -> tuple[object, ...]:
            return e.attack, e.norm, e.eps, repr(sorted(e.options.items()))

        merged = {key(e): e for e in self.evaluations}
        for e in new:
            if key(e) not in merged or e.n >= merged[key(e)].n:
                merged[key(e)] = e
        ordered = sorted(merged.values(), key=lambda e: (e.attack != "clean", e.attack, e.norm or "", e.eps))
        return self.model_copy(update={"evaluations": tuple(ordered)})

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


def first_mistake(error: ValidationError) -> str:
    """Describe the first place where a file departs from its schema."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return f"{where}: {first['msg']}"


def refuse_newer(text: str | bytes, known: int, what: str) -> None:
    """Refuse a JSON text whose ``schema_version`` is newer than this zoo knows; other faults are not checked.

    Raises:
        UserError: it is.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > known:
        raise UserError(f"{what} has schema {version}, this zoo knows {known}: pip install --upgrade robust-zoo")
