"""How much robustness hangs on each group of channels, and what it is spared for that."""

import math

from torch import nn

from zoo.channels.graph import ChannelGraph
from zoo.criticality import robust_criticality
from zoo.probes import Subject


def module_robust_sensitivity(
    subject: Subject, graph: ChannelGraph, radius: float = 0.1, steps: int = 10, prefix: str = ""
) -> dict[str, float]:
    """Measure the robust criticality of each group: the weights that compute its channels climb together.

    The paper on module robust sensitivity (Bai, Tabia, Santos-Rodriguez, arXiv 2410.15176) was at hand as an abstract
    only; this is the robust criticality of arXiv 2308.02533, on which it is modelled, with a group for a module.

    Args:
        subject: the network, and images that it was not trained on and will not be tested on.
        graph: of the network or of its submodule ``prefix``.
        radius: of the weights' movement, relative to their norms.
        steps: of the ascent.
        prefix: name of the submodule that the graph describes, with a dot at its end, or ``""``.

    Returns:
        The growth of the adversarial loss by group, >= 0.
    """
    modules: dict[str, list[nn.Parameter]] = {
        group: [subject.model.get_parameter(prefix + name) for name in names]
        for group, names in graph.producers.items()
    }
    return robust_criticality(subject, radius, steps, modules=modules)


def tilts(sensitivities: dict[str, float], weight: float = 0.4) -> dict[str, float]:
    """Return what is taken off each group's pruning ratio, negative where more is taken.

    With s the sensitivity, t = log(1 + s) scaled to 0..1 over the groups: weight * (t - mean of t). This project's
    definition: the paper's formula was not at hand.

    Args:
        sensitivities: by group, >= 0.
        weight: 0 makes all ratios equal.
    """
    logs = {group: math.log1p(s) for group, s in sensitivities.items()}
    low, high = min(logs.values()), max(logs.values())
    scaled = {group: (x - low) / (high - low) if high > low else 0.0 for group, x in logs.items()}
    mean = sum(scaled.values()) / len(scaled)
    return {group: weight * (x - mean) for group, x in scaled.items()}
