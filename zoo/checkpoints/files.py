"""Read a file of weights: safetensors, or a pickle by torch's weights-only loader, which runs nothing."""

import argparse
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from zoo.errors import UserError, first_line

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".tar")
"""Of files of weights; their content says what they are, the suffix only that a path means a file."""
HEAD = 512
"""Bytes at the start of a file that tell its kind."""
SAVE_WEIGHTS = "save weights alone, torch.save(model.state_dict(), FILE)"


def read_file(path: Path) -> Any:
    """Return what a file of weights holds: mappings, lists, numbers, texts and tensors, on the CPU.

    Raises:
        UserError: it is empty, a text, cut, of another format, or holds pickled code or objects, which are never run.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise UserError(f"{path} is empty: copy or download it again")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path, head)
    if text := _text_in(head):
        raise UserError(_why_text(path, text))
    return _read_pickle(path)


def _read_safetensors(path: Path, head: bytes) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        if text := _text_in(head):
            raise UserError(_why_text(path, text)) from None
        raise UserError(f"{path} cannot be read ({error}): it is truncated, or not a safetensors file") from None


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, key and end-of-file errors of whatever else a file may be
        raise UserError(_why_unreadable(path, str(error))) from None


def _why_unreadable(path: Path, reason: str) -> str:
    """Return what is wrong with a file that the weights-only loader refuses."""
    if found := re.search(r"(?:GLOBAL|class) (\w+(?:\.\w+)*)", reason):
        return f"{path} holds pickled code or objects ({found[1]}), which zoo never runs: {SAVE_WEIGHTS}"
    if "TorchScript" in reason:
        return f"{path} is a TorchScript program, which zoo never runs: {SAVE_WEIGHTS}"
    if "Unsupported" in reason:
        return f"{path} holds a pickle that is more than weights, and zoo runs none: {SAVE_WEIGHTS}"
    return f"{path} is cut, damaged, or no file of weights ({first_line(Exception(reason))[:80]}): copy it again"


def _text_in(head: bytes) -> str:
    """Return the first line of a file that begins as a text, or ``""``."""
    if not head.isascii() or any(byte < 9 for byte in head):
        return ""
    return head.decode("ascii").strip().partition("\n")[0].strip()


def _why_text(path: Path, line: str) -> str:
    if line.startswith("version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the file itself: fetch that with `git lfs pull`"
    return f"{path} is a text file, not weights; it begins with {line[:40]!r}: download the file itself"
