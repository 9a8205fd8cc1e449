"""Choose how many channels each group keeps, for a share of the parameters to remove."""

from zoo.budget import BLOCKS, MOST, OVERSHOOT, bisect, percent_removed
from zoo.channels.graph import ChannelGraph, ParameterCount
from zoo.errors import UserError


def fast_widths(size: int, dense: int, block: int) -> list[int]:
    """Return the widths a group may take, ascending: multiples of a step, powers of two below it, and its size.

    The step is the block, but in groups of fewer than 128 channels at most 8, of fewer than 32 at most 4: a coarser
    step would decide how much such a group loses.

    Args:
        size: current channels.
        dense: channels before any cut.
        block: the requested step.
    """
    step = min(block, 16 if dense >= 128 else 8 if dense >= 32 else 4)
    small = [2**i for i in range(10) if 2**i < min(step, size)]
    return sorted({*small, *range(step, size + 1, step), size})


def choose_widths(
    graph: ChannelGraph,
    dense: dict[str, int],
    size: float,
    total: int,
    offsets: dict[str, float] | None = None,
    stays: dict[str, str] | None = None,
) -> dict[str, int]:
    """Choose widths so that the network keeps at most ``size`` parameters, and not much less.

    Each group loses the share clip(level - offset, 0, most) of its dense channels. The level is the same for all; a
    uniform ratio has no offsets. Widths are rounded down to multiples of 16. The remainder goes to the groups furthest
    below their share, in finer steps only if the size would be undershot by more than `zoo.budget.OVERSHOOT` of the
    total.

    Args:
        graph: of the current network; no width rises above its current value.
        dense: channels of each group before any cut.
        size: parameters that may stay.
        total: parameters of the whole dense network.
        offsets: by which sensitive groups lose less, see `zoo.sensitivity.criticality.ratio_offsets`.
        stays: groups that keep their current width, and why.

    Raises:
        UserError: the smallest widths leave too many parameters; the message names the most possible.
    """
    count = ParameterCount(graph)
    offsets = offsets or dict.fromkeys(graph.sizes, 0.0)
    most = MOST if any(offsets.values()) else 1.0
    stays = stays or {}
    smallest = {group: present if group in stays else 1 for group, present in graph.sizes.items()}
    if count(smallest) > size:
        possible = percent_removed(count(smallest), total)
        fixed = next((f"; {layer} stays: {why}" for layer, why in {**stays, **graph.obstacles}.items()), "")
        raise UserError(
            f"the budget leaves {int(size)} of {total} parameters, but one channel in each of the "
            f"{len(graph.sizes) - len(stays)} groups that can be pruned removes only {possible} %{fixed}"
        )
    for block in BLOCKS:
        levels = {
            group: [present] if group in stays else fast_widths(present, dense[group], block)
            for group, present in graph.sizes.items()
        }
        wanted = _wanted(dense, offsets, levels, count, size, most)
        if wanted is None:
            continue
        chosen = _rounded(levels, wanted)
        _spend(chosen, levels, wanted, count, size)
        if size - count(chosen) <= OVERSHOOT * total:
            break
    return chosen


def _wanted(
    dense: dict[str, int],
    offsets: dict[str, float],
    levels: dict[str, list[int]],
    count: ParameterCount,
    size: float,
    most: float,
) -> dict[str, float] | None:
    """Return the widths, not yet rounded, at the least level that meets the size when they are rounded down."""

    def at(level: float, most: float) -> dict[str, float]:
        return {g: (1 - min(max(level - offsets[g], 0.0), most)) * n for g, n in dense.items()}

    high = 1 + max(map(abs, offsets.values()))
    for cap in (most, 1.0):
        if count(_rounded(levels, at(high, cap))) <= size:
            break
    else:
        return None
    return at(bisect(lambda level: count(_rounded(levels, at(level, cap))) <= size, high, 0.0), cap)


def _rounded(levels: dict[str, list[int]], wanted: dict[str, float]) -> dict[str, int]:
    """Round every width down to one of its levels."""
    return {g: max((x for x in found if x <= wanted[g] + 1e-9), default=found[0]) for g, found in levels.items()}


def _spend(
    chosen: dict[str, int], levels: dict[str, list[int]], wanted: dict[str, float], count: ParameterCount, size: float
) -> None:
    """Widen groups one step at a time, those furthest below their target first, while the size allows it."""
    open_groups = set(chosen)
    while open_groups:
        group = min(open_groups, key=lambda g: (chosen[g] / max(wanted[g], 1e-3), g))
        above = [x for x in levels[group] if x > chosen[group]]
        if above and count(chosen | {group: above[0]}) <= size:
            chosen[group] = above[0]
        else:
            open_groups.remove(group)
