"""The metadata of an exported file: the entries of its ``metadata_props``."""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from zoo._version import __version__

if TYPE_CHECKING:
    from zoo.runs.card import Card


@dataclass(frozen=True)
class Metadata:
    """Provenance and labels of an exported classifier.

    Each field is one entry of the file's metadata: texts verbatim, everything else as JSON.

    Attributes:
        zoo_version: the version of zoo that wrote the file.
        arch: timm's name of the backbone.
        method: how it was compressed.
        data: the data set it was trained on.
        image_shape: (channels, height, width); the pixels are in [0, 1], normalisation is in the graph.
        class_names: the name of each logit.
        mean: the normalisation's mean per channel.
        std: the normalisation's standard deviation per channel.
        params: parameters of the deployed model, before BatchNorm is folded.
        macs: its multiply-accumulates for one image.
        dense_params: parameters of the backbone before compression.
        dense_macs: multiply-accumulates of the backbone before compression.
        ranks: the rank of each factorized layer, or the width of each layer of a pruned network, by its name.
        weights_sha256: of the run's weights.
        training: the command that trained the weights.
        commit: the commit it ran at, or ``""``.
        stem: of the dense backbone, see `zoo.backbone.create_backbone`.
        target: of the file, see `zoo.export.target`.
        precision: of weights and products: fp32, fp16 or int8.
        forms: how each factorized layer is written and why, see `zoo.export.choice`.
        graph_params: parameters of the graph, where BatchNorm is folded and layers may be merged or padded; None if the
            file does not give them.
        graph_macs: the graph's multiply-accumulates for one image; None if the file does not give them.
        runtime: whose times decided the forms.
        runtime_version: of that runtime; ``""`` if nothing was timed.
    """

    zoo_version: str
    arch: str
    method: str
    data: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    params: int
    macs: int
    dense_params: int
    dense_macs: int
    ranks: dict[str, int]
    weights_sha256: str
    training: str
    commit: str
    stem: str = "auto"
    target: str = "generic"
    precision: str = "fp32"
    forms: dict[str, Any] = field(default_factory=dict)
    graph_params: int | None = None
    graph_macs: int | None = None
    runtime: str = "onnxruntime"
    runtime_version: str = ""

    @classmethod
    def of(cls, card: "Card") -> "Metadata":
        """Return the metadata of the model that a card describes."""
        return cls(
            zoo_version=__version__,
            weights_sha256=card.weights.sha256,
            training=card.provenance.command,
            commit=card.provenance.commit or "",
            **{name: getattr(card, name) for name in _FROM_CARD},
        )

    def to_props(self) -> dict[str, str]:
        """Return the metadata as the texts that an ONNX file holds."""
        return {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in asdict(self).items()}

    @classmethod
    def from_props(cls, props: dict[str, str]) -> "Metadata":
        """Read the metadata of an ONNX file; foreign entries are ignored.

        Raises:
            ValueError: an entry is missing (other than one with a default) or cannot be read.
        """
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for entry in fields(cls):
            name = entry.name
            if name not in props:
                if entry.default is MISSING and entry.default_factory is MISSING:
                    raise ValueError(f"no {name!r}")
                continue
            values[name] = props[name]
            if hints[name] is not str:
                try:
                    values[name] = TypeAdapter(hints[name]).validate_json(props[name], strict=True)
                except ValidationError:
                    raise ValueError(f"an unreadable {name!r}") from None
        return cls(**values)


_FROM_CARD = (
    "arch",
    "method",
    "data",
    "image_shape",
    "stem",
    "class_names",
    "mean",
    "std",
    "params",
    "macs",
    "dense_params",
    "dense_macs",
    "ranks",
)
