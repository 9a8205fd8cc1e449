"""Names of published models, ``arch.tag``, and patterns of them."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from zoo.errors import UserError, unknown_name

PART = r"[a-z0-9][a-z0-9_\-]{0,99}"
PATTERN = rf"^{PART}\.{PART}$"
"""Lower case, so that two names are two folders on every system; no separator, so that a name is one folder."""

ModelName = Annotated[str, StringConstraints(pattern=PATTERN)]


def is_name(text: str) -> bool:
    """Whether a text has the form of a model's name, ``arch.tag``."""
    return re.fullmatch(PATTERN[1:-1], text) is not None


def check_name(text: str) -> str:
    """Return a name unchanged, if it is valid.

    Raises:
        UserError: it does not have the form of a name.
    """
    if not is_name(text):
        raise UserError(
            f"{text!r} is not a model name: names are ARCH.TAG, such as resnet18.robust_lowrank80_c10, "
            "of lower-case letters, digits, _ and -"
        )
    return text


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that match a pattern, in natural order (resnet18 before resnet101).

    Args:
        pattern: with ``*``, ``?`` and ``[...]``; an architecture alone stands for all of its tags.
        names: to choose from.
    """
    whole = pattern if "." in pattern or any(c in pattern for c in "*?[") else f"{pattern}.*"
    return sorted((name for name in names if fnmatchcase(name, whole)), key=_natural)


def unknown_model(name: str, known: Iterable[str], where: str) -> UserError:
    """Return the error for a model that no hub has, with the models of its architecture or the nearest names."""
    known = sorted(known)
    own = matching(name.partition(".")[0], known)
    if own and name not in own and "." not in name:
        return UserError(f"{name!r} is an architecture: choose one of its models, {', '.join(own[:5])}")
    if not known:
        return UserError(f"unknown model {name!r}: {where} has none")
    return unknown_name(f"model (in {where})", name, known)


def default_tag(method: str, compression: float, data: str, robust: bool) -> str:
    """Return the default tag of a model, such as ``robust_lowrank75_at_c10``: per cent in steps of five.

    Args:
        method: its name.
        compression: share of parameters removed; not part of the tag if it is zero.
        data: the data set.
        robust: trained against an adversary.
    """
    percent = 5 * int(20 * compression)
    size = str(percent) if percent else ""
    short = re.sub(r"^cifar(\d+)$", r"c\1", data)
    return "_".join([method + size, *(["at"] if robust else []), short])


def is_path(target: str) -> bool:
    """Whether a command's argument means a folder rather than a published model."""
    return not is_name(target) or Path(target).exists()


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
