"""Answer an attack's queries from a model's ONNX graph, where ONNX Runtime is faster than PyTorch."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.attacks import AttackedModel, Queries
from zoo.backbone.folded import folded
from zoo.errors import UserError
from zoo.evaluation.sweeps import Sweep
from zoo.export.onnx_file import write_onnx
from zoo.export.parity import LIMIT, relative_difference
from zoo.latency.session import INPUT, OUTPUT, open_session
from zoo.runtime.complexity import count_macs

WORTH = 10**12
"""Fewest multiply-accumulates of all queries for which a graph is written: about 20 s, as long as that takes."""
ROUNDS = 7
"""Turns of both libraries; the fastest of each counts, because a busy machine only ever slows them down."""
GAIN = 0.95
"""Largest share of PyTorch's time at which the graph is used."""


def faster_queries(
    model: nn.Module, image_shape: tuple[int, int, int], sweeps: Sequence[Sweep], n: int, batch_size: int = 250
) -> Queries | None:
    """Return a model's logits by ONNX Runtime, or None where PyTorch is as fast or the queries are few.

    The graph computes the same function in fp32, and attacks take their verdicts from the model. On the CPU, with as
    many threads as PyTorch has.

    Args:
        model: the deployed form, in eval mode, on the CPU; images in [0, 1] to logits.
        image_shape: (channels, height, width).
        sweeps: attacks that will be run on it.
        n: images that they get.
        batch_size: images that the model gets at once, at most.
    """
    if _query_macs(model, image_shape, sweeps, n) < WORTH:
        return None
    try:
        graph = _graph(model, image_shape)
    except UserError:  # an architecture without an ONNX form is attacked in PyTorch
        return None
    network = folded(model, image_shape)
    images = torch.rand(batch_size, *image_shape, generator=torch.Generator().manual_seed(0))
    images = images[: AttackedModel(network, batch_size).at_once(images)]
    with torch.no_grad():
        if not relative_difference(graph(images), network(images)) <= LIMIT:
            return None
        ours, theirs = _fastest([lambda: graph(images), lambda: network(images)])
    return graph if ours <= GAIN * theirs else None


def _query_macs(model: nn.Module, image_shape: tuple[int, int, int], sweeps: Sequence[Sweep], n: int) -> int:
    with torch.no_grad():
        classes = model(torch.zeros(1, *image_shape)).shape[1]
    parts = [part for sweep in sweeps for part in sweep.attack.parts(classes) * len(sweep.eps)]
    queries = sum(part.passes(classes) for part in parts if part.black_box)
    return queries * n * count_macs(model, image_shape) if queries else 0


def _graph(model: nn.Module, image_shape: tuple[int, int, int]) -> Queries:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, path, image_shape, {})
        session = open_session(path.read_bytes(), "cpu", torch.get_num_threads())

    def logits(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.contiguous().numpy()})[0])

    return logits


def _fastest(functions: Sequence[Callable[[], object]]) -> list[float]:
    """Return the shortest time of each function, in seconds, taking turns."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return [min(own[1:]) for own in times]
