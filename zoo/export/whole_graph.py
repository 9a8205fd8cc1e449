"""Compare whole graphs of one model: the forms chosen layer by layer must also be fast together."""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from zoo.errors import UserError
from zoo.export.choice import TIE, Choices, Forms, dense_forms, padded_forms
from zoo.export.target import Target
from zoo.export.writer import GraphWriter
from zoo.latency.cache import TimeCache
from zoo.latency.measure import Program, measure
from zoo.latency.time_limit import TimeIsUp

ROUNDS, SECONDS = {1: 25, 32: 9}, 0.04
"""Turns of each graph, by batch size: one image decides which is written, 32 show that it is not slower in bulk."""
CLOSE = 0.1
"""If a graph's time is within this share of the dense one's, all get three times the turns."""
CHOSEN, TRAINED, PADDED, MERGED = "layer by layer", "as trained", "all padded", "all dense"
DENSE_FP32 = "all dense, fp32"
"""The reference for lower precision; it is never written."""
Ratios = dict[int, dict[str, float]]
"""By batch size: the time of each graph over that of the one chosen layer by layer."""


def alternatives(choices: Choices, block: int = 1) -> dict[str, Forms]:
    """Return the forms of the graphs to compare: as chosen, as trained, all padded, all dense; none twice.

    Padding gains less than `TIE` in a single layer, but the gains of many layers add up.

    Args:
        choices: of the layers.
        block: to multiples of which ranks are padded.
    """
    all_of = {
        CHOSEN: {name: choice.form for name, choice in choices.items()},
        TRAINED: {name: choice.trained for name, choice in choices.items()},
        PADDED: padded_forms(choices, block),
        MERGED: dense_forms(choices),
    }
    found: dict[str, Forms] = {}
    for name, forms in all_of.items():
        if forms not in found.values():
            found[name] = forms
    return found


def compare(
    choices: Choices,
    write: GraphWriter,
    target: Target,
    cache: TimeCache | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Ratios, tuple[int, ...]]:
    """Time a model's graphs beside each other; graphs measured before are not written again.

    Args:
        choices: of the layers.
        write: writes a graph of the model. Unless it does so in fp32, the dense graph in fp32 is timed as well.
        target: a measured one.
        cache: where ratios are kept; None: in the user's cache folder.
        say: called with a line on each stage.

    Returns:
        Ratios for one image and, if such a batch fits in memory, for 32; nothing if there is only one graph. And the
        batch sizes for which the target's time limit left no time.
    """
    graphs, full = alternatives(choices, target.block), write.metadata.precision != "fp32"
    names = [*graphs, *([DENSE_FP32] if full else [])]
    if len(names) == 1:
        return {}, ()

    def files() -> list[Path | Program]:
        found = []
        for i, forms in enumerate(graphs.values(), 1):
            target.limit.check()
            say(f"writing whole graphs to time: {i} of {len(graphs)}")
            found.append(write.timed(forms, target.runtime))
        return found + [write.timed(dense_forms(choices), target.runtime, full=True)] * full

    cache = cache or target.open_cache()
    key = _key(graphs, write)
    ratios: Ratios = {}
    uncompared: list[int] = []
    for batch, rounds in ROUNDS.items():
        found = cache.get(f"{key}, batch {batch}", len(names))
        if found is None:
            try:
                with nullcontext() if batch == 1 else suppress(UserError):  # such a batch may not fit in memory
                    found = _measure(files(), target, batch, rounds, names.index(_dense(names)), say)
                    if not target.limit.is_over:  # fewer rounds than usual are not kept
                        cache.put(f"{key}, batch {batch}", found)
            except TimeIsUp:
                uncompared.append(batch)
        if found is not None:
            ratios[batch] = dict(zip(names, found, strict=True))
    return ({}, tuple(ROUNDS)) if 1 in uncompared else (ratios, tuple(uncompared))


def _key(graphs: dict[str, Forms], write: GraphWriter) -> str:
    m, plain = write.metadata, [{layer: str(form) for layer, form in forms.items()} for forms in graphs.values()]
    what = [m.arch, m.image_shape, len(m.class_names), m.precision, m.ranks, list(graphs), plain]
    return "graph " + hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _measure(
    files: Sequence[Path | Program],
    target: Target,
    batch: int,
    rounds: int,
    dense: int,
    say: Callable[[str], None] = lambda text: None,
) -> list[float]:
    def ratios(rounds: int) -> list[float]:
        times = measure(
            files,
            device=target.device,
            threads=target.threads,
            batches=(batch,),
            rounds=rounds,
            seconds=SECONDS,
            limit=target.limit,
            say=lambda text: say(f"timing whole graphs: {text}"),
        )
        return [timing.latency[batch].ratio_to(times[0].latency[batch]) for timing in times]

    once = ratios(rounds)
    is_close = any(abs(ratio / once[dense] - 1) < CLOSE for i, ratio in enumerate(once) if i != dense)
    if is_close:
        with suppress(TimeIsUp):
            return ratios(3 * rounds)
    return once


def fastest(ratios: Ratios) -> str:
    """Return the graph to write: the fastest at batch 1 among those never slower than the dense one.

    Differences within `TIE` are ignored; among equals, the graph chosen layer by layer is written.
    """
    single = ratios[1]
    dense = _dense(single)
    kept = [
        graph
        for graph in (CHOSEN, TRAINED, PADDED, MERGED)
        if graph in single and all(at[graph] <= (1 + TIE) * at[dense] for at in ratios.values())
    ]
    best = min(kept, key=single.__getitem__)
    return CHOSEN if CHOSEN in kept and single[CHOSEN] <= (1 + TIE) * single[best] else best


def _dense(graphs: Collection[str]) -> str:
    return MERGED if MERGED in graphs else CHOSEN  # the dense one, or the only one


def overruled(choices: Choices, graph: str, ratios: Ratios, block: int = 1) -> Choices:
    """Return the choices with the forms of another graph (see `alternatives`), and the reason."""
    gain = {batch: at[graph] / at[CHOSEN] for batch, at in ratios.items()}
    batch = 1 if gain[1] <= 1 / (1 + TIE) else min(gain, key=gain.__getitem__)
    why = f"the whole graph takes {gain[batch]:.2f} of the time {graph}, batch {batch}"
    forms = alternatives(choices, block)[graph]
    return {
        name: choice if forms[name] == choice.form else replace(choice, form=forms[name], reason=why)
        for name, choice in choices.items()
    }
