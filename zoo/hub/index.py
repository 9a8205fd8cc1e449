"""The index of a hub: which models it has, their files, and the figures they are chosen by."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from zoo.errors import UserError
from zoo.hub.names import ModelName
from zoo.runs.card import Card
from zoo.runs.records import Evaluation, Threat
from zoo.runs.schema import first_mistake, refuse_newer

INDEX = "index.json"
SCHEMA = 1
"""Version of the index's schema, raised when fields come or change."""
LARGEST_INDEX = 16 * 2**20
"""Largest size of an index in bytes: no more is read."""

FileName = Literal["card.json", "model.safetensors", "model.onnx", "README.md"]
"""Every file that a published model can have: an index cannot name any other, or one elsewhere."""
REQUIRED: tuple[FileName, ...] = ("card.json", "model.safetensors")


Words = Annotated[str, StringConstraints(pattern=r"^[^\p{Cc}\p{Cf}]*$", max_length=200)]
"""Text for the screen: control characters would be commands to the terminal, format characters reorder it."""
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Robust(_Record):
    """The lowest accuracy that was measured at one radius, and by which attack."""

    norm: Literal["Linf", "L2"]
    eps: float = Field(ge=0, le=1e6)
    attack: Words
    accuracy: float = Field(ge=0, le=1)
    n: Count

    @classmethod
    def of(cls, e: Evaluation) -> "Robust":
        """Make it from an evaluation of a card."""
        assert e.norm in ("Linf", "L2")
        return cls(norm=e.norm, eps=e.eps, attack=e.attack, accuracy=e.accuracy, n=e.n)


class Summary(_Record):
    """The figures of a card that models are listed by.

    Attributes:
        clean: accuracy on n clean test images.
        robust: the lowest accuracy at each radius that was searched.
        threat: the threat model of its training.
        latency_ms: of one image in ONNX Runtime, the median.
        gradient_masking: whether accuracies under attack are not credible.
        uninformative: whether the network answers as one that learned nothing.
    """

    arch: Words
    method: Words
    data: Words
    image_shape: tuple[int, int, int]
    params: Count
    dense_params: Count
    macs: Count
    clean: float | None = Field(ge=0, le=1)
    n: Count
    robust: tuple[Robust, ...]
    threat: Threat | None
    latency_ms: float | None = Field(ge=0, le=1e9)
    gradient_masking: bool
    uninformative: bool = False
    licence: Words | None

    @classmethod
    def of(cls, card: Card) -> "Summary":
        """Summarise a card.

        Raises:
            UserError: it has a figure that makes no sense, or a name that a screen cannot show.
        """
        try:
            return cls._of(card)
        except ValidationError as error:
            raise UserError(f"the card of {card.arch!r} cannot be listed: {first_mistake(error)}") from None

    @classmethod
    def _of(cls, card: Card) -> "Summary":
        lowest: dict[tuple[str, float], Evaluation] = {}
        for e in card.evaluations:
            if e.norm in ("Linf", "L2"):  # models are chosen by these; the card has L1 and L0 too
                key = (e.norm, e.eps)
                lowest[key] = min(e, lowest.get(key, e), key=_lowest_first)
        same = (
            "arch",
            "method",
            "data",
            "image_shape",
            "params",
            "dense_params",
            "macs",
            "gradient_masking",
            "uninformative",
            "licence",
        )
        return cls(
            **{name: getattr(card, name) for name in same},
            clean=card.clean.accuracy if card.clean else None,
            n=card.clean.n if card.clean else 0,
            robust=tuple(Robust.of(lowest[key]) for key in sorted(lowest)),
            threat=card.threat_model,
            latency_ms=next((t.median_ms for t in card.latency if t.batch == 1), None),
        )

    def robust_at(self, threat: Threat | None = None) -> Robust | None:
        """Return the accuracy under a threat (None: the model's own), or None if it was not measured."""
        threat = threat or self.threat
        near = (r for r in self.robust if threat and r.norm == threat.norm and abs(r.eps - threat.eps) <= 1e-6)
        return min(near, key=_lowest_first, default=None)


def _lowest_first(found: Evaluation | Robust) -> tuple[float, bool]:
    """Order accuracies at one radius: the lowest counts; among equal ones AutoAttack's, which is not just a bound."""
    return found.accuracy, found.attack != "autoattack"


class FileEntry(_Record):
    """The identity of a file: its SHA-256 and its size."""

    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    bytes: int = Field(ge=1, le=2**36)


class Entry(_Record):
    """One published model."""

    files: dict[FileName, FileEntry]
    summary: Summary

    @model_validator(mode="after")
    def _complete(self) -> "Entry":
        if missing := [name for name in REQUIRED if name not in self.files]:
            raise ValueError(f"{' and '.join(missing)} not among its files")
        return self

    @property
    def version(self) -> str:
        """Distinguishes it from another model of the same name: the digest of its card, which names the weights."""
        return self.files["card.json"].sha256[:16]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files.values())


class Index(_Record):
    """All models of a hub, by name."""

    schema_version: int = Field(default=SCHEMA, ge=1, le=SCHEMA)
    models: dict[ModelName, Entry] = Field(default={}, max_length=20_000)

    @classmethod
    def parse(cls, content: bytes, where: str) -> "Index":
        """Read an index.

        Args:
            content: the file.
            where: its source, for messages.

        Raises:
            UserError: it is malformed, or of a newer schema.
        """
        refuse_newer(content, SCHEMA, where)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            page = ": it is a web page" if content.lstrip()[:1] == b"<" else f" ({first_mistake(error)})"
            raise UserError(f"{where} is not a hub index{page}") from None

    def check_free(self, name: str, where: str) -> None:
        """Check that a name is not taken: a published model never changes.

        Raises:
            UserError: it is.
        """
        if name in self.models:
            raise UserError(f"{where} has {name} already, and what is published stays: choose another --tag")

    def with_model(self, name: str, entry: Entry, where: str) -> "Index":
        """Return the index with one model more; raises as `check_free` does."""
        self.check_free(name, where)
        models = dict(sorted([*self.models.items(), (name, entry)]))
        return Index(models=models)

    def to_json(self) -> bytes:
        """Return the content of the index file."""
        return self.model_dump_json(indent=1).encode() + b"\n"
