"""The card of a trained model: what it is, how it was made, and every figure that was measured on it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import UserError
from zoo.files import atomic

SCHEMA = 1
"""Version of the card's schema; raised when a field changes its meaning."""


class _Record(BaseModel):
    # JSON has no infinity: the condition number of a singular layer is written as the string "Infinity".
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Evaluation(_Record):
    """One measured accuracy.

    Attributes:
        attack: ``clean``, ``fgsm``, ``pgd``, ...
        norm: of the perturbation; None for clean accuracy.
        eps: the perturbation's radius in pixel units of [0, 1].
        accuracy: share of images classified rightly, in 0..1.
        n: how many test images.
        options: the attack's other settings, such as steps and restarts.
        parts: of an ensemble of attacks, the accuracy left after each one.
        skipped: parts that the model cannot be attacked with, and why.
    """

    attack: str
    norm: Literal["Linf", "L2"] | None
    eps: float
    accuracy: float = Field(ge=0, le=1)
    n: int
    options: dict[str, Any] = {}
    parts: dict[str, float] = {}
    skipped: dict[str, str] = {}


class Finding(_Record):
    """One figure of a probe; see `zoo.probes`.

    Attributes:
        probe: its name.
        case: what it was measured under.
        accuracy: share of images classified rightly, in 0..1, or for ``interval`` and ``lipschitz`` proved to be;
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
    """What was looked at before accuracies under attack were believed; see `zoo.evaluation.sanity`.

    That adversarial images lie within eps and in [0, 1], and that verdicts come from a fresh forward pass on
    them, needs no check here: an attack that breaks either is stopped.

    Attributes:
        failures: names of failed checks; any of them means that gradients are masked.
        zero_gradient_share: share of probed images whose loss has no gradient at all.
        accuracy_at_large_eps: under PGD at a radius where nothing can be recognized.
        n: images probed.
    """

    failures: tuple[str, ...]
    zero_gradient_share: float
    accuracy_at_large_eps: float
    n: int


class Weights(_Record):
    """The file that holds the weights, relative to the card."""

    file: str
    sha256: str
    bytes: int


class LayerRow(_Record):
    """One linear or convolution layer: weight shape, rank (None: dense), why, and its condition number."""

    name: str
    kind: str
    shape: tuple[int, ...]
    rank: int | None
    note: str
    condition_number: float | None


class Provenance(_Record):
    """Where the model comes from."""

    command: str
    seed: int
    commit: str | None
    versions: dict[str, str]
    hardware: str


class Card(_Record):
    """Everything known of a model.

    ``params`` and ``macs`` are those of the deployed form (S folded). ``applied`` holds what was applied, in order:
    each with its kind, its name, its hyper-parameters, and what came of it if that is more than the weights.
    """

    schema_version: int = SCHEMA
    arch: str
    method: str
    method_options: dict[str, Any]
    data: str
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    ranks: dict[str, int]
    params: int
    dense_params: int
    macs: int
    dense_macs: int
    layers: tuple[LayerRow, ...]
    max_condition_number: float | None
    lipschitz_bound: float | None = None
    applied: tuple[dict[str, Any], ...] = ()
    training: dict[str, Any]
    evaluations: tuple[Evaluation, ...] = ()
    sanity: Sanity | None = None
    findings: tuple[Finding, ...] = ()
    weights: Weights
    provenance: Provenance

    @property
    def compression(self) -> float:
        """Share of the dense model's parameters that are gone."""
        return 1 - self.params / self.dense_params

    @property
    def gradient_masking(self) -> bool:
        """Whether a check failed, so that accuracies under attack are not to be believed."""
        return self.sanity is not None and bool(self.sanity.failures)

    def with_evaluations(self, new: list[Evaluation]) -> "Card":
        """Return the card with evaluations added.

        One of the same attack, norm, eps and options is replaced, unless it was measured on more images.
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
        with atomic(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Card":
        """Read a card.

        Raises:
            UserError: the file is not a card, or one of a newer schema.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except (ValidationError, UnicodeDecodeError) as error:
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "the file"
                reason = f"{where}: {first['msg']}"
            else:
                reason = str(error)
            raise UserError(f"{path} is not a card of schema {SCHEMA} ({reason}): train again or update zoo") from None
