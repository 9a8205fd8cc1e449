"""Latency of exported files in ONNX Runtime: a fresh process for each, timed in turns."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.latency.timing import MARKER


@dataclass(frozen=True)
class Latency:
    """Time per batch of one file.

    Attributes:
        batch: images per run.
        median_ms: of all timed runs, in milliseconds.
        p95_ms: 95th percentile, in milliseconds.
        p99_ms: 99th percentile, in milliseconds.
        n: timed runs.
        images_per_second: batch over the median.
        round_ms: the median of each round, in milliseconds.
        memory_mb: peak memory of the process so far, beyond its memory before it opened the file.
    """

    batch: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    n: int
    images_per_second: float
    round_ms: tuple[float, ...]
    memory_mb: float = 0.0

    @classmethod
    def of(cls, batch: int, rounds: list[list[float]], memory_mb: float = 0.0) -> "Latency":
        """Summarise the times, in seconds, of the runs of each round."""
        times = 1e3 * np.concatenate(rounds)
        median = float(np.median(times))
        return cls(
            batch=batch,
            median_ms=median,
            p95_ms=float(np.percentile(times, 95)),
            p99_ms=float(np.percentile(times, 99)),
            n=len(times),
            images_per_second=1e3 * batch / median,
            round_ms=tuple(1e3 * float(np.median(r)) for r in rounds),
            memory_mb=memory_mb,
        )

    def ratio_to(self, other: "Latency") -> float:
        """Return the ratio to a time measured right before or after this one: the median of the rounds."""
        return float(np.median(np.array(self.round_ms) / np.array(other.round_ms)))


@dataclass(frozen=True)
class Program:
    """A module that answers requests as `zoo.latency.timing` does, and its argument."""

    module: str
    argument: str


@dataclass(frozen=True)
class Timing:
    """The measurements of one file.

    Attributes:
        latency: by batch size.
        start_ms: median time until the model is ready to run, in milliseconds.
    """

    latency: dict[int, Latency]
    start_ms: float


class TimingProcess:
    """A process that holds one file open and times it on request; use it as a context manager.

    Args:
        path: the exported file, or another program to run.
        device: ``cpu`` or ``cuda``.
        threads: of ONNX Runtime.

    Raises:
        UserError: the process cannot open the file on the device, or dies.
    """

    def __init__(self, path: Path | Program, device: str, threads: int) -> None:
        program = path if isinstance(path, Program) else Program("zoo.latency.timing", str(path))
        self.path = path if isinstance(path, Path) else program.module
        self.memory_mb = 0.0
        """The peak memory of the process beyond its memory before it opened the file."""
        # -P and the path: the child finds the modules that this process finds, not those of a working directory.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        command = [sys.executable, "-P", "-m", program.module, program.argument, device, str(threads)]
        self._errors = TemporaryFile("w+")  # noqa: SIM115  (open as long as the process)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, env=environment
        )
        try:
            self.provider: str = self._read()["provider"]
        except BaseException:
            self.close()
            raise

    def time(self, batch: int, seconds: float) -> list[float]:
        """Run one batch size for about ``seconds``, after a warm-up; return each run's time in seconds."""
        answer = self._ask(f"{batch} {seconds}")
        self.memory_mb = answer["memory_mb"]
        return answer["times"]

    def start_times(self) -> list[float]:
        """Open the file again several times; return each opening's time in seconds."""
        return self._ask("start")["times"]

    def _ask(self, request: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process died; the read that follows reports it
            print(request, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARKER):
                answer = json.loads(line.removeprefix(MARKER))
                if "error" in answer:
                    raise UserError(answer["error"])
                return answer
        code = self._process.wait()
        self._errors.seek(0)
        killed = "the system ended it, perhaps because a batch does not fit in memory: choose a smaller --batch-size"
        reason = killed if code == -9 else (self._errors.read().strip().splitlines() or ["it gave no reason"])[-1]
        raise UserError(f"timing {self.path} ended with code {code}: {reason}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> "TimingProcess":
        """Return the process."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process."""
        self.close()


def measure(
    paths: Sequence[Path | Program],
    *,
    device: str,
    threads: int,
    batches: tuple[int, ...],
    rounds: int,
    seconds: float,
) -> list[Timing]:
    """Time files in turns, so that a temporary slowdown of the machine affects all of them.

    Args:
        paths: exported files, or other programs to time.
        device: ``cpu`` or ``cuda``.
        threads: of ONNX Runtime.
        batches: batch sizes.
        rounds: turns of each file at each batch size.
        seconds: length of a turn, without its warm-up.

    Returns:
        The measurements of each file.
    """
    with ExitStack() as stack:
        processes = [stack.enter_context(TimingProcess(path, device, threads)) for path in paths]
        results: list[dict[int, Latency]] = [{} for _ in paths]
        for batch in sorted(batches):  # memory is the peak so far
            times: list[list[list[float]]] = [[] for _ in paths]
            for turn in range(rounds):
                for i in Random(turn).sample(range(len(paths)), len(paths)):  # no file has a fixed neighbour
                    times[i].append(processes[i].time(batch, seconds))
            for i, rounds_of_file in enumerate(times):
                results[i][batch] = Latency.of(batch, rounds_of_file, processes[i].memory_mb)
        starts = [1e3 * float(np.median(process.start_times())) for process in processes]
        return [Timing(latency, start) for latency, start in zip(results, starts, strict=True)]
