"""The graph that ONNX Runtime computes for a file, after its optimisations, and what they left undone."""

import tempfile
from collections import Counter, deque
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

BLOCKED = "com.microsoft.nchwc"
PRODUCTS = {"Conv", "FusedConv"}
PARTS = {
    "Erf": "GELU in parts",
    "Pow": "GELU (tanh) or a norm in parts",
    "Softplus": "Mish in parts",
    "Sigmoid": "Sigmoid apart from its product",
    "ReduceMean": "mean as ReduceMean",
    "BatchNormalization": "BatchNorm not folded",
}
"""Operators that stay where a fusion failed, and what they are part of."""
FARTHEST = 12
"""Operators after which a detour is no detour any more but a part of the network in another layout."""


def optimised(path: Path) -> Any:
    """Return the graph of a file as ONNX Runtime runs it on this machine's CPU."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(Path(folder) / "optimised.onnx"), 4
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath).graph


def kinds(graph: Any) -> Counter[str]:
    """Count the operators of a graph by type."""
    return Counter(node.op_type for node in graph.node)


def is_blocked(graph: Any) -> bool:
    """Return whether ONNX Runtime uses its blocked layout in a graph: not every processor has kernels for it."""
    return any(node.domain == BLOCKED for node in graph.node)


def detours(graph: Any, leaving: str, returning: str) -> Counter[str]:
    """Count the shortest ways from an operator of one type to one of another, by the operators between them.

    ``ReorderOutput`` to ``ReorderInput`` is a map that leaves the blocked layout and comes back;
    ``DequantizeLinear`` to ``QuantizeLinear`` one that leaves the integers.
    """
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ways = [_way(node, readers, leaving, returning) for node in graph.node if node.op_type == leaving]
    return Counter(" ".join(way) or "nothing" for way in ways if way is not None)


def _way(start: Any, readers: dict[str, list[Any]], leaving: str, returning: str) -> list[str] | None:
    waiting: deque[tuple[Any, list[str]]] = deque([(start, [])])
    seen = set()
    while waiting:
        node, passed = waiting.popleft()
        for reader in (reader for output in node.output for reader in readers.get(output, [])):
            if reader.op_type == returning:
                return passed
            if reader.output[0] not in seen and reader.op_type != leaving and len(passed) < FARTHEST:
                seen.add(reader.output[0])
                waiting.append((reader, [*passed, reader.op_type]))
    return None


def left_over(graph: Any) -> Counter[str]:
    """Count what stayed unfused, left the blocked layout or left the integers, in words."""
    found: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in PARTS:
            found[PARTS[node.op_type]] += 1
        if node.op_type in PRODUCTS and node.domain != BLOCKED and is_blocked(graph):
            found["convolution outside the blocked layout"] += 1
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    found["MatMul and its bias apart"] = sum(
        node.op_type == "Add" and any(made_by.get(name) == "MatMul" for name in node.input) for node in graph.node
    )
    for way, count in detours(graph, "ReorderOutput", "ReorderInput").items():
        found[f"blocked layout left for: {way}"] = count
    for way, count in detours(graph, "DequantizeLinear", "QuantizeLinear").items():
        found[f"integers left for: {way}"] = count
    return +found
