"""The records on a card: what one measurement found, and what is known of one file or layer."""

import json
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    # JSON has no infinity: the condition number of a singular layer is written as the string "Infinity".
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Evaluation(Record):
    """One measured accuracy.

    Attributes:
        attack: ``clean``, ``fgsm``, ``pgd``, ...
        norm: of the perturbation; None for clean accuracy.
        eps: the perturbation's radius in pixel units of [0, 1], in L0 the number of changed pixels.
        accuracy: share of images classified correctly, in 0..1.
        n: how many test images.
        seed: of their draw.
        options: the attack's other settings, such as steps and restarts.
        parts: for an ensemble of attacks, the accuracy after each one.
        skipped: parts that the model cannot be attacked with, and why.
    """

    attack: str
    norm: Literal["Linf", "L2", "L1", "L0"] | None
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


class Finding(Record):
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


class Doubt(NamedTuple):
    """Why accuracies are not credible: the kind, the signs of it, and what follows."""

    kind: str
    signs: tuple[str, ...]
    consequence: str

    @property
    def reason(self) -> str:
        """The kind and its signs, in words."""
        return f"{self.kind} ({', '.join(self.signs).replace('_', ' ')})"

    def __str__(self) -> str:
        return f"{self.reason}: {self.consequence}"


class Sanity(Record):
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

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why the accuracies are not credible; empty if every check passed."""
        masked = Doubt("masked gradients", self.failures, "the accuracies under attack are not credible")
        learned_nothing = Doubt("uninformative", self.uninformative, "the network answers as if it had learned nothing")
        return tuple(doubt for doubt in (masked, learned_nothing) if doubt.signs)


class Threat(Record):
    """The threat model: perturbations up to ``eps`` in pixels of [0, 1]."""

    norm: Literal["Linf", "L2"]
    eps: FiniteFloat = Field(ge=0, le=1e6)


class Timing(Record):
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


class CurvePoint(Record):
    """One of the networks cut out of a nested run, and what was measured on it.

    Attributes:
        compression: as it was asked for.
        params: of its deployed form.
        macs: of its deployed form.
        evaluations: clean accuracy first.
        latency_ms: of one image in ONNX Runtime, the median; None: not measured.
        hardware: that it was measured on, in words.
    """

    compression: float = Field(gt=0, lt=1)
    params: int = Field(ge=0)
    macs: int = Field(ge=0)
    evaluations: tuple[Evaluation, ...] = ()
    latency_ms: FiniteFloat | None = None
    hardware: str = ""


class StoredFile(Record):
    """A file beside the card: its name (never a path), SHA-256 and size."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")
    sha256: str
    bytes: int


class Weights(StoredFile):
    """The file that holds the weights; ``dtype`` is that of its matrices and kernels."""

    dtype: Literal["float32", "float16"] = "float32"


class Prefix(Record):
    """The beginning of the weights' file that holds a size of a nested network: its length and its SHA-256."""

    compression: float = Field(gt=0, lt=1)
    bytes: int = Field(ge=1)
    sha256: str


class LayerRow(Record):
    """One linear or convolution layer: weight shape, rank (None: dense), why, and its condition number."""

    name: str
    kind: str
    shape: tuple[int, ...]
    rank: int | None
    note: str
    condition_number: float | None


class Provenance(Record):
    """The provenance of a model."""

    command: str
    seed: int
    commit: str | None
    versions: dict[str, str]
    hardware: str
