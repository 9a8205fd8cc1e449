"""The form of each layer in the exported file, from that file's metadata."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.export.forms import Form

KEY = "forms"
"""Entry of the metadata that holds the form of each layer."""


@dataclass(frozen=True)
class LayerForm:
    """The form of one layer in an exported file.

    Attributes:
        form: into which layers it was written, and at which rank.
        reason: why.
        costs: of each candidate form, by name, in the unit of the target.
    """

    form: str
    reason: str
    costs: dict[str, float]


def read_forms(path: Path, weights_sha256: str) -> dict[str, LayerForm]:
    """Return the form of each layer, by its name in the bare backbone; empty if the file does not state it.

    Args:
        path: of the exported file, which need not exist.
        weights_sha256: of the run; a file with other weights is ignored.

    Raises:
        UserError: the file is not an ONNX file, or its metadata cannot be read.
    """
    if not path.is_file():
        return {}
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto: Any = onnx.load(path, load_external_data=False)
        props = {entry.key: entry.value for entry in proto.metadata_props}
        if props.get("weights_sha256") != weights_sha256 or KEY not in props:
            return {}
        return {name.removeprefix("backbone."): _form(entry) for name, entry in json.loads(props[KEY]).items()}
    except (DecodeError, RecursionError, KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path} is damaged: export the run again, or remove it") from None


def _form(entry: dict[str, Any]) -> LayerForm:
    form = Form(entry["split"], entry.get("rank", 0), entry.get("inner", 0))
    return LayerForm(str(form), entry["reason"], dict(entry.get("costs", {})))
