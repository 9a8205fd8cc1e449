"""A safetensors file whose tensors lie in a given order, so that its beginning can be read alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.files import atomic

DTYPES = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64, "U8": torch.uint8}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
PADDING = "padding."
"""Beginning of the names of tensors that only align what follows."""
ALIGNMENT = 8


def write_ordered(parts: Sequence[dict[str, Tensor]], path: Path) -> list[int]:
    """Write tensors part by part as one safetensors file, and return where each part ends, in bytes from the beginning.

    Args:
        parts: tensors by name, fp32, fp16, int64 or uint8.
        path: of the file, written whole or not at all.
    """
    header: dict[str, Any] = {}
    blocks: list[bytes] = []
    at, ends = 0, []
    for i, part in enumerate(parts):
        tensors = dict(sorted(part.items(), key=lambda item: (-item[1].element_size(), item[0])))
        gap = -at % ALIGNMENT
        if gap:
            tensors = {f"{PADDING}{i}": torch.zeros(gap, dtype=torch.uint8), **tensors}
        for name, tensor in tensors.items():
            content = tensor.detach().cpu().contiguous().numpy().tobytes()
            entry = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape)}
            header[name] = entry | {"data_offsets": [at, at + len(content)]}
            blocks.append(content)
            at += len(content)
        ends.append(at)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(blocks)
    return [8 + len(text) + end for end in ends]


def read_beginning(path: Path) -> dict[str, Tensor]:
    """Return the tensors that lie wholly in the beginning of a safetensors file.

    Raises:
        UserError: it is no such beginning.
    """
    content = bytearray(path.read_bytes())
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        found = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"] if name != "__metadata__" else (0, len(content))
            if start + last <= len(content) and not name.startswith(PADDING):
                dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
                size = (last - first) // torch.empty(0, dtype=dtype).element_size()
                flat = torch.empty(0, dtype=dtype)
                if size:
                    flat = torch.frombuffer(content, dtype=dtype, count=size, offset=start + first).clone()
                found[name] = flat.reshape(shape)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is not the beginning of a safetensors file ({type(error).__name__})") from None
    return found
