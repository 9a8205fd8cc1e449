"""Time one exported file in a process of its own, which `zoo.export.latency` starts.

By hand: ``echo '1 0.5' | python -m zoo.export.timing FILE.onnx cpu 2`` times batch 1 for half a second on
2 threads. Each line of standard input is a request ``BATCH SECONDS``; each is answered by one line of JSON
after `MARKER`.
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from zoo.errors import UserError
from zoo.export.session import INPUT, OUTPUT, OnnxModel

MARKER = "@zoo "
"""What an answer begins with: libraries print to standard output as well."""
FIRST_RUNS = 5
"""Runs before the first timed one of a batch size: memory is planned and kernels are chosen there."""
WARM_RUNS = 2
"""Runs before each round: another process has had the caches since the last one."""
FEWEST = 3
"""Timed runs of a round, however slow."""


def runner(model: OnnxModel, batch: int) -> Callable[[], Any]:
    """Return a function that classifies one batch of random images, which are on the device already."""
    shape = (batch, *model.metadata.image_shape)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    if model.device == "cpu":
        return lambda: model.logits(images)
    binding = model.session.io_binding()
    binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0))
    binding.bind_output(OUTPUT, "cuda")
    return lambda: model.session.run_with_iobinding(binding)


def time_runs(run: Callable[[], Any], seconds: float) -> list[float]:
    """Call ``run`` for about so many seconds and return the time of each call, in seconds."""
    times: list[float] = []
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while len(times) < FEWEST or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    finally:
        gc.enable()
    return times


def _answer(content: dict[str, Any]) -> None:
    print(MARKER + json.dumps(content), flush=True)


def main(argv: list[str]) -> None:
    """Open the file and answer requests until standard input ends."""
    path, device, threads = argv
    try:
        model = OnnxModel(Path(path), device, int(threads))  # type: ignore[arg-type]
    except UserError as error:
        _answer({"error": str(error)})
        return
    _answer({"provider": model.provider})
    runners: dict[int, Callable[[], Any]] = {}
    for line in sys.stdin:
        batch, seconds = line.split()
        fresh = int(batch) not in runners
        run = runners.setdefault(int(batch), runner(model, int(batch)))
        for _ in range(FIRST_RUNS if fresh else WARM_RUNS):
            run()
        _answer({"times": time_runs(run, float(seconds))})


if __name__ == "__main__":
    main(sys.argv[1:])
