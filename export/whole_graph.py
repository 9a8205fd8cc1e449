"""Compare whole graphs of one model: forms that were chosen layer by layer must hold up together."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from zoo.export.cache import TimeCache
from zoo.export.choice import TIE, Choices, dense_forms
from zoo.export.forms import Form
from zoo.export.latency import measure
from zoo.export.target import Target

ROUNDS, SECONDS = 9, 0.1
CHOSEN, TRAINED, MERGED = "layer by layer", "as trained", "all dense"
Forms = dict[str, Form]
"""The form of each factorized layer, by its name."""


def alternatives(choices: Choices) -> dict[str, Forms]:
    """Return the forms of the graphs that are compared: as chosen, as trained, all dense; none twice."""
    all_of = {
        CHOSEN: {name: choice.form for name, choice in choices.items()},
        TRAINED: {name: choice.trained for name, choice in choices.items()},
        MERGED: dense_forms(choices),
    }
    found: dict[str, Forms] = {}
    for name, forms in all_of.items():
        if forms not in found.values():
            found[name] = forms
    return found


def compare(
    graphs: dict[str, Forms],
    what: object,
    write: Callable[[Forms], Path],
    target: Target,
    cache: TimeCache | None = None,
) -> dict[str, float]:
    """Return each graph's time for one image over that of the first; what was measured before is not written again.

    Args:
        graphs: of `alternatives`.
        what: plain data that tells this model's graphs from others of the same forms.
        write: writes a graph and returns its file.
        target: a measured one.
        cache: where ratios are kept; None: in the user's cache folder.
    """
    cache = cache or TimeCache(target.device, target.threads)
    plain = {name: {layer: str(form) for layer, form in forms.items()} for name, forms in graphs.items()}
    name = "graph " + hashlib.sha256(json.dumps([what, plain]).encode()).hexdigest()
    ratios = cache.get(name, len(graphs))
    if ratios is None:
        files = [write(forms) for forms in graphs.values()]
        times = measure(
            files, device=target.device, threads=target.threads, batches=(1,), rounds=ROUNDS, seconds=SECONDS
        )
        ratios = [timing.latency[1].ratio_to(times[0].latency[1]) for timing in times]
        cache.put(name, ratios)
    return dict(zip(graphs, ratios, strict=True))


def fastest(ratios: dict[str, float]) -> str:
    """Return the graph to write: the one chosen layer by layer, unless another is clearly faster."""
    best = min(ratios, key=ratios.__getitem__)
    return CHOSEN if ratios[CHOSEN] <= (1 + TIE) * ratios[best] else best


def overruled(choices: Choices, graph: str, ratios: dict[str, float]) -> Choices:
    """Return the choices with the forms of another graph, and say why."""
    why = f"the whole graph takes {ratios[graph] / ratios[CHOSEN]:.2f} of the time {graph}"
    forms = alternatives(choices)[graph]
    return {
        name: choice if forms[name] == choice.form else replace(choice, form=forms[name], reason=why)
        for name, choice in choices.items()
    }
