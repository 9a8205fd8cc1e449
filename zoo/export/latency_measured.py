"""Measured cost of a layer in each of its forms: all forms in turns, in a runtime."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from zoo.export.forms import Form, Geometry
from zoo.export.layer_graph import input_shape, layer_graph
from zoo.latency.cache import TimeCache
from zoo.latency.session import open_session
from zoo.latency.time_limit import TimeLimit
from zoo.latency.timing import no_collection, time_runs

ROUNDS = 15
SECONDS = 0.01
"""Length of one form's turn."""
WARM_RUNS = 2
LayerRunner = Callable[[Geometry, Form], Callable[[], Any]]
"""Opens one layer in one form and returns a function that runs it on one image."""


class MeasuredCost:
    """Times forms on this machine, each layer once: earlier measurements are read from the cache.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: of one operator on the CPU.
        cache: where times are kept; None: in the user's cache folder.
        limit: of the time for all layers together.
        runner: returns what runs a layer in a form; None: in ONNX Runtime.
    """

    def __init__(
        self,
        device: Literal["cpu", "cuda"],
        threads: int,
        cache: TimeCache | None = None,
        limit: TimeLimit | None = None,
        runner: LayerRunner | None = None,
    ) -> None:
        self.device, self.threads = device, threads
        self.cache, self.limit = cache or TimeCache(device, threads), limit or TimeLimit()
        self.runner = runner or self._in_onnx_runtime

    def __call__(self, problem: Geometry, forms: Sequence[Form]) -> list[float]:
        """Return the time of each form for one image, in milliseconds.

        It is the time of the fastest run: other load on the machine can only add to a layer's time.

        Raises:
            TimeIsUp: the limit left no time to measure them.
        """
        name = f"{_words(problem)}: {' | '.join(map(str, forms))}"
        known = self.cache.get(name, len(forms))
        if known is None:
            known = self._measure(problem, forms)
            self.cache.put(name, known)
        return known

    def _measure(self, problem: Geometry, forms: Sequence[Form]) -> list[float]:
        self.limit.check()
        runs = []
        for form in forms:
            self.limit.check()
            runs.append(self.runner(problem, form))
        best = [float("inf")] * len(forms)
        with no_collection():
            for turn in range(ROUNDS):
                order = range(len(forms)) if turn % 2 == 0 else reversed(range(len(forms)))
                for i in order:
                    self.limit.check()
                    for _ in range(WARM_RUNS):
                        runs[i]()
                    best[i] = min(best[i], *time_runs(runs[i], SECONDS))
        return [1e3 * time for time in best]

    def _in_onnx_runtime(self, problem: Geometry, form: Form) -> Callable[[], Any]:
        images = np.random.default_rng(0).random(input_shape(problem), dtype=np.float32)
        session = open_session(layer_graph(problem, form), self.device, self.threads, stop_spinning=True)
        if self.device == "cpu":
            return lambda: session.run(None, {"x": images})
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0))
        binding.bind_output("y", "cuda")
        return lambda: session.run_with_iobinding(binding)


def _words(problem: Geometry) -> str:
    o, (h, w) = problem.op, problem.size
    if problem.kind == "linear":
        return f"linear {o.inputs} > {o.outputs} on {w}"
    pairs = (o.kernel, o.stride, o.padding, o.dilation)
    kernel, stride, padding, dilation = (f"{a}x{b}" for a, b in pairs)
    return f"conv {o.inputs} > {o.outputs}, {kernel} stride {stride} padding {padding} dilation {dilation} on {h}x{w}"
