"""Split the factors of a nested network by the size that needs them first, and put them together again."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]
"""Tensors by name."""
Columns = Sequence[tuple[int, int]]
"""The columns of U and of V in each size of a layer, the smallest size first."""
MARK = "@"
"""Separates a factor's name from the number of a shell."""


def split_shells(state: State, columns: Mapping[str, Columns]) -> list[State]:
    """Return what all sizes share, then what each size adds to the next smaller one, the smallest first.

    A shell of S is L-shaped: new rows, and new columns of the old rows.

    Args:
        state: of the largest network, with factors NAME.U, NAME.S and NAME.V.
        columns: by NAME, for the layers that shrink; every size lies inside the next larger one.
    """
    factors = {f"{name}.{factor}" for name in columns for factor in "USV"}
    parts: list[State] = [{name: value for name, value in state.items() if name not in factors}]
    for i in range(max((len(sizes) for sizes in columns.values()), default=0)):
        shell: State = {}
        for name, sizes in columns.items():
            (r0, s0), (r1, s1) = sizes[i - 1] if i else (0, 0), sizes[i]
            u, s, v = (state[f"{name}.{factor}"] for factor in "USV")
            pieces = {"U": u[:, r0:r1], "V": v[:, s0:s1], "rows": s[r0:r1, :s1], "columns": s[:r0, s0:s1]}
            shell |= {f"{name}.{key}{MARK}{i}": x.contiguous() for key, x in pieces.items() if x.numel()}
        parts.append(shell)
    return parts


def merge_shells(state: State) -> State:
    """Return the state with the factors of all shells in it put together; without any, as it is.

    With the first shells alone, the factors are those of the prefixes.
    """
    pieces: dict[str, dict[str, dict[int, Tensor]]] = {}
    merged: State = {}
    for name, value in state.items():
        whole, mark, i = name.rpartition(MARK)
        if not mark:
            merged[name] = value
            continue
        layer, _, key = whole.rpartition(".")
        pieces.setdefault(layer, {}).setdefault(key, {})[int(i)] = value
    for layer, found in pieces.items():
        for factor in ("U", "V"):
            merged[f"{layer}.{factor}"] = torch.cat([found[factor][i] for i in sorted(found[factor])], 1)
        merged[f"{layer}.S"] = _core(found.get("rows", {}), found.get("columns", {}))
    return merged


def _core(rows: dict[int, Tensor], columns: dict[int, Tensor]) -> Tensor:
    first, *others = sorted(rows.keys() | columns.keys())
    core = rows[first]
    for i in others:
        core = torch.cat([core, columns[i]], 1) if i in columns else core
        core = torch.cat([core, rows[i]], 0) if i in rows else core
    return core
