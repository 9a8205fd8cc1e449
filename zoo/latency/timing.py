"""Time one exported file in a separate process, which `zoo.latency.measure` starts.

By hand: ``echo '1 0.5' | python -m zoo.latency.timing FILE.onnx cpu 2`` times batch 1 for half a second on
2 threads. Each line of standard input is a request ``BATCH SECONDS``, or ``start`` for the time that opening takes;
each is answered by one line of JSON after `MARKER`.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_native_id
from typing import Any, Protocol, runtime_checkable

import numpy as np
import onnxruntime as ort

from zoo.errors import UserError
from zoo.latency.session import INPUT, OUTPUT, OnnxModel, failed_run

MARKER = "@zoo "
"""Prefix of an answer: libraries print to standard output as well."""
FIRST_RUNS = 5
"""Runs before the first timed run of a batch size, in which memory is planned and kernels are chosen."""
WARM_RUNS = 1
"""Runs before each round: another process has used the caches since the last one."""
IDLE, LONGEST_WAIT = 0.004, 1.0
"""Seconds of an idle check, and of the longest wait for idle threads."""
OPENINGS = 3
"""Number of times that a file is opened, to measure the start."""
FEWEST = 1
"""Timed runs of a round, however slow."""


class Timeable(Protocol):
    """A program that can be timed."""

    provider: str

    def runner(self, batch: int) -> Callable[[], Any]:
        """Return a function that classifies one batch of random images that are already on the device."""
        ...

    def start_times(self) -> list[float]:
        """Return the times until a model is ready, in seconds, measured several times if that is cheap."""
        ...


@runtime_checkable
class OwnClock(Protocol):
    """A function that runs a batch and can time it by a clock of its own, such as that of another process."""

    def __call__(self) -> Any:
        """Run once."""
        ...

    def times(self, seconds: float) -> list[float]:
        """Run for about ``seconds`` and return the time of each run, in seconds."""
        ...


class OnnxFile:
    """An exported file; on the CPU each of its threads, including this process's, stays on its own processor."""

    def __init__(self, path: Path, device: Any, threads: int) -> None:
        places = placement(threads) if device == "cpu" else []
        self._open = lambda: OnnxModel(path, device, threads, places[1:])
        self.model = self._open()
        if places:
            os.sched_setaffinity(0, places[:1])
        self.provider = self.model.provider

    def runner(self, batch: int) -> Callable[[], Any]:
        """Return a function that classifies one batch of random images that are already on the device."""
        images = random_images(batch, self.model.metadata.image_shape)
        if self.model.device == "cpu":
            return lambda: self.model.logits(images)
        binding = self.model.session.io_binding()
        binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0))
        binding.bind_output(OUTPUT, "cuda")
        return lambda: self.model.session.run_with_iobinding(binding)

    def start_times(self) -> list[float]:
        """Open the file a few more times: ONNX Runtime reads it and optimises its graph."""
        return [time for _ in range(OPENINGS) for time in time_runs(self._open, 0.0)]


def wait_for_threads() -> None:
    """Return once this process's threads are idle: ONNX Runtime's wait busily for 50 ms and more after a run.

    They would take a processor from the file that is timed next. A thread whose processor is in use by another process
    computes nothing and yet is not idle, so Linux's thread states are read as well.
    """
    end = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(IDLE)
        if time.process_time() - before < IDLE / 4 and not _others_want_a_processor():
            return


def _others_want_a_processor() -> bool:
    """Return whether Linux lists a thread of this process, besides the caller's, as running; False elsewhere."""
    with suppress(OSError):
        threads = [thread for thread in Path("/proc/self/task").iterdir() if thread.name != str(get_native_id())]
        return any((thread / "stat").read_text().rpartition(")")[2].split()[0] == "R" for thread in threads)
    return False


def placement(threads: int) -> list[int]:
    """Return a processor for each thread, the same for every file; empty if there are too few, or without Linux.

    Processors of a shared machine are seldom equally fast, so placement would otherwise decide a file's figures.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return usable[:threads] if len(usable) >= threads else []


def random_images(batch: int, image_shape: tuple[int, int, int]) -> Any:
    """Return images in [0, 1], float32, (batch, C, H, W)."""
    return np.random.default_rng(0).random((batch, *image_shape), dtype=np.float32)


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python's collector from running."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def time_runs(run: Callable[[], Any], seconds: float) -> list[float]:
    """Call ``run`` for about ``seconds`` and return the time of each call, in seconds."""
    if isinstance(run, OwnClock):
        return run.times(seconds)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


class Memory:
    """The memory of the process and its children beyond its value at construction, in MB; 0 unless Linux reports it."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak, which the imports have set
        self._before = _status("VmRSS")

    def peak(self) -> float:
        """Return the peak since then."""
        children = sum(_status("VmHWM", pid) for pid in _children("self"))
        return max(0.0, _status("VmHWM") + children - self._before)


def _children(pid: str) -> list[str]:
    """Return the processes that a process started, and those that they started."""
    with suppress(OSError):
        found = [x for task in Path(f"/proc/{pid}/task").iterdir() for x in (task / "children").read_text().split()]
        return [pid for child in found for pid in (child, *_children(child))]
    return []


def _status(entry: str, pid: str = "self") -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(entry):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _answer(content: dict[str, Any]) -> None:
    print(MARKER + json.dumps(content), flush=True)


def serve(make: Callable[[], Timeable]) -> None:
    """Build the timed program and answer requests until standard input ends."""
    memory = Memory()
    try:
        model = make()
    except UserError as error:
        _answer({"error": str(error)})
        return
    _answer({"provider": model.provider})
    runners: dict[int, Callable[[], Any]] = {}
    for line in sys.stdin:
        if line.strip() == "start":
            _answer({"times": model.start_times()})
            continue
        words = line.split()
        batch, seconds = int(words[0]), float(words[1])
        try:
            fresh = batch not in runners
            if fresh:
                runners[batch] = model.runner(batch)
            run = runners[batch]
            for _ in range(FIRST_RUNS if fresh else WARM_RUNS):
                run()
            with no_collection():
                times = time_runs(run, seconds)
            wait_for_threads()
        except Exception as error:  # ONNX Runtime's and PyTorch's exceptions share no base of their own
            _answer({"error": str(error) if isinstance(error, UserError) else failed_run(batch, error)})
            return
        _answer({"times": times, "memory_mb": memory.peak()})


def main(argv: list[str]) -> None:
    """Serve the file, device and number of threads on the command line."""
    path, device, threads = argv
    serve(lambda: OnnxFile(Path(path), device, int(threads)))


if __name__ == "__main__":
    main(sys.argv[1:])
