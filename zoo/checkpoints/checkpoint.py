"""A checkpoint from elsewhere, a file or a folder: its tensors, and what it says of itself."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.checkpoints.files import SUFFIXES, read_file
from zoo.errors import UserError

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
"""Keys under which averaged weights are saved, which are taken before the raw ones."""
RAW = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
"""Keys under which weights are saved."""
INDEX = "*.safetensors.index.json"
"""Of a folder whose weights are in several files."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by their names in the file.

    Attributes:
        path: the file or folder.
        tensors: on the CPU.
        entry: the key that they are saved under, ``""`` where there is none.
        arch: timm's name of the architecture, where a config.json gives it.
        class_names: in the order of the logits, where the checkpoint has them.
        input_size: (channels, height, width) of the images, where it says so.
        mean, std: the normalisation's, per channel, where it says so.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    entry: str = ""
    arch: str | None = None
    class_names: tuple[str, ...] | None = None
    input_size: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def is_checkpoint(path: Path) -> bool:
    """Whether a path means a checkpoint from elsewhere rather than a RUN: a file, or a folder without a RUN's files."""
    if path.is_dir():
        return not any((path / name).is_file() for name in ("card.json", "config.yaml"))
    return path.is_file() or path.suffix in SUFFIXES


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint: a file, or a folder in Hugging Face's or timm's layout.

    Raises:
        UserError: it is missing, damaged, or has no weights; see `zoo.checkpoints.files.read_file`.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    content = read_file(path)
    entry, tensors = _tensors_in(content)
    if not tensors:
        held = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(f"{path} has no weights: it holds {held or 'nothing'}")
    return Checkpoint(path, tensors, entry, class_names=_class_names(content))


def _tensors_in(content: Any) -> tuple[str, dict[str, Tensor]]:
    """Return the key of the weights, at any depth, and the weights."""
    if not isinstance(content, Mapping):
        return "", {}
    for key in (*AVERAGED, *RAW):
        inner, tensors = _tensors_in(content.get(key))
        if tensors:
            return f"{key}.{inner}".rstrip("."), tensors
    return "", {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _read_folder(folder: Path) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        tensors |= read_checkpoint(file).tensors
    config = _json(folder / "config.json")
    described = config.get("pretrained_cfg") or config
    preprocessing = _json(folder / "preprocessor_config.json")
    arch = config.get("architecture")
    return Checkpoint(
        folder,
        tensors,
        arch=arch if isinstance(arch, str) else None,
        class_names=_names(config.get("label_names") or config.get("id2label")),
        input_size=_numbers(described.get("input_size"), int),
        mean=_numbers(described.get("mean") or preprocessing.get("image_mean"), float),
        std=_numbers(described.get("std") or preprocessing.get("image_std"), float),
    )


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that a folder's weights are in."""
    for index in sorted(folder.glob(INDEX)):
        names = sorted(set(_json(index).get("weight_map", {}).values()))
        if missing := [name for name in names if not (folder / Path(str(name)).name).is_file()]:
            raise UserError(f"{folder} lacks {', '.join(missing)}, which {index.name} names: copy the folder again")
        return [folder / Path(name).name for name in names]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
    found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"{folder} has no weights: it needs a model.safetensors, or give the path of a file")
    if len(found) > 1:
        raise UserError(f"{folder} has several files of weights, {', '.join(x.name for x in found)}: give one's path")
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): repair it, or give the file of the weights alone") from None
    return content if isinstance(content, dict) else {}


def _numbers(value: Any, kind: type) -> Any:
    """Return three numbers (or one per channel) as a tuple, or None where they are none."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    return tuple(kind(x) for x in value) if all(isinstance(x, int | float) for x in value) else None


def _class_names(content: Any) -> tuple[str, ...] | None:
    """Return the names of the classes that a checkpoint's dictionary has beside the weights."""
    for where in (content, content.get("hyper_parameters")):
        for key in ("class_names", "classes", "class_to_idx") if isinstance(where, Mapping) else ():
            if names := _names(where.get(key)):
                return names
    return None


def _names(value: Any) -> tuple[str, ...] | None:
    """Return class names in order, of a list, of ``{index: name}`` or of ``{name: index}``."""
    found = list(value) if isinstance(value, list | tuple) else list(_ordered(value))
    return tuple(found) if found and all(isinstance(name, str) for name in found) else None


def _ordered(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        pairs = [(k, v) if isinstance(v, int) else (v, k) for k, v in value.items()]
        try:
            yield from (name for name, _ in sorted(pairs, key=lambda pair: int(pair[1])))
        except (TypeError, ValueError):
            return
