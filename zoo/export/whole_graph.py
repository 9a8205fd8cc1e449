"""Compare whole graphs of one model: the forms chosen layer by layer must also be fast together."""

import hashlib
import json
from collections.abc import Collection
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from zoo.errors import UserError
from zoo.export.choice import TIE, Choices, Forms, dense_forms, padded_forms
from zoo.export.target import Target
from zoo.export.writer import GraphWriter
from zoo.latency.cache import TimeCache
from zoo.latency.measure import measure

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


def compare(choices: Choices, write: GraphWriter, target: Target, cache: TimeCache | None = None) -> Ratios:
    """Time a model's graphs beside each other; graphs measured before are not written again.

    Args:
        choices: of the layers.
        write: writes a graph of the model. Unless it does so in fp32, the dense graph in fp32 is timed as well.
        target: a measured one.
        cache: where ratios are kept; None: in the user's cache folder.

    Returns:
        Ratios for one image and, if such a batch fits in memory, for 32; nothing if there is only one graph.
    """
    graphs, full = alternatives(choices, target.block), write.metadata.precision != "fp32"
    names = [*graphs, *([DENSE_FP32] if full else [])]
    if len(names) == 1:
        return {}

    def files() -> list[Path]:
        return [write(forms).path for forms in graphs.values()] + [write(dense_forms(choices)).full] * full

    cache = cache or TimeCache(target.device, target.threads)
    key = _key(graphs, write)
    ratios: Ratios = {}
    for batch, rounds in ROUNDS.items():
        found = cache.get(f"{key}, batch {batch}", len(names))
        if found is None:
            with nullcontext() if batch == 1 else suppress(UserError):  # such a batch may not fit in memory
                found = _measure(files(), target, batch, rounds, names.index(_dense(names)))
                cache.put(f"{key}, batch {batch}", found)
        if found is not None:
            ratios[batch] = dict(zip(names, found, strict=True))
    return ratios


def _key(graphs: dict[str, Forms], write: GraphWriter) -> str:
    m, plain = write.metadata, [{layer: str(form) for layer, form in forms.items()} for forms in graphs.values()]
    what = [m.arch, m.image_shape, len(m.class_names), m.precision, m.ranks, list(graphs), plain]
    return "graph " + hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _measure(files: list[Path], target: Target, batch: int, rounds: int, dense: int) -> list[float]:
    def ratios(rounds: int) -> list[float]:
        times = measure(
            files, device=target.device, threads=target.threads, batches=(batch,), rounds=rounds, seconds=SECONDS
        )
        return [timing.latency[batch].ratio_to(times[0].latency[batch]) for timing in times]

    once = ratios(rounds)
    is_close = any(abs(ratio / once[dense] - 1) < CLOSE for i, ratio in enumerate(once) if i != dense)
    return ratios(3 * rounds) if is_close else once


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
