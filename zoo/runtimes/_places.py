"""Find operators of an ONNX graph, and say where they are in words."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx

SHOWN = 3
"""Places of an operator that a message lists."""


def unknown_operators(runtime: str, file: Path, operators: Iterable[str]) -> str:
    """Return the message that a runtime does not know operators, each with the layers where a file has it.

    Args:
        runtime: its name.
        file: an ONNX file.
        operators: types of nodes, such as ``Gelu``.
    """
    nodes = onnx.load(file, load_external_data=False).graph.node
    places = {name: list(_places(nodes, name)) for name in dict.fromkeys(operators)}
    found = [f"{name} ({_listed(at)})" if at else name for name, at in places.items()]
    return f"{runtime} does not know {', '.join(found)} in {file}: leave {runtime} out, or choose another architecture"


def operators_in(text: str, file: Path) -> list[str]:
    """Return the types of nodes of an ONNX file that a runtime's message names as words."""
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())
    types = dict.fromkeys(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)
    return [name for name in types if name in words]


def layer_of(nodes: Iterable[Any], index: int) -> str:
    """Return the layer of a node: the one whose weights it reads, or the last before it that has any."""
    last = ""
    for node in list(nodes)[: index + 1]:
        for name in node.input:
            if name.endswith((".weight", ".bias")):
                last = name.rpartition(".")[0]
    return last


def _places(nodes: Any, operator: str) -> Iterable[str]:
    for i, node in enumerate(nodes):
        if node.op_type == operator:
            layer = layer_of(nodes, i)
            yield f"{node.name or node.output[0]}, at {layer}" if layer else node.name or node.output[0]


def _listed(places: list[str]) -> str:
    more = f"; and {len(places) - SHOWN} more" if places[SHOWN:] else ""
    return "; ".join(places[:SHOWN]) + more
