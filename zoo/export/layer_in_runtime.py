"""One layer in one form, open in a runtime: the stopwatch of an export for that runtime."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from weakref import finalize

import numpy as np

from zoo.export.forms import Form, Geometry
from zoo.export.layer_graph import input_shape, layer_graph, layer_network
from zoo.runtimes import RUNTIMES, Runner, Source


class LayerInRuntime:
    """Opens layers in a runtime; converted files are kept in a folder as long as this object.

    Args:
        runtime: its name.
        threads: of a session.
    """

    def __init__(self, runtime: str, threads: int) -> None:
        self._runtime, self._threads = RUNTIMES.get(runtime)(), threads
        self._folder, self._count = Path(mkdtemp()), 0
        finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def __call__(self, problem: Geometry, form: Form) -> Runner:
        """Return what runs a layer on one image.

        Raises:
            UserError: the runtime cannot convert or open it.
        """
        folder = self._folder / str(self._count)
        folder.mkdir()
        self._count += 1
        file, shape = folder / "layer.onnx", input_shape(problem)
        file.write_bytes(layer_graph(problem, form))
        source = Source(file, shape[1:], lambda: layer_network(problem, form))
        session = self._runtime.open(self._runtime.convert(source, folder), self._runtime.threads(self._threads))
        return Runner(self._runtime, session, np.random.default_rng(0).random(shape, dtype=np.float32))
