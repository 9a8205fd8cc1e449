"""Latency of exported files in ONNX Runtime: a fresh process for each, timed in turns."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.latency.time_limit import TimeIsUp, TimeLimit
from zoo.latency.timing import MARKER

FEWEST_TURNS = 5
"""Turns of each file that a time limit must leave for a result."""


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
        start_ms: median time until the model is ready to run, in milliseconds; NaN if a time limit left none for it.
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
    limit: TimeLimit | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Timing]:
    """Time files in turns, so that a temporary slowdown of the machine affects all of them.

    Args:
        paths: exported files, or other programs to time.
        device: ``cpu`` or ``cuda``.
        threads: of ONNX Runtime.
        batches: batch sizes.
        rounds: turns of each file at each batch size.
        seconds: length of a turn, without its warm-up.
        limit: after which no turn begins; the start of files is then not timed.
        say: called with a line on each round.

    Returns:
        The measurements of each file.

    Raises:
        TimeIsUp: the limit left less than `FEWEST_TURNS` turns of each file.
    """
    limit = limit or TimeLimit()
    with ExitStack() as stack:
        processes = []
        for path in paths:
            limit.check()
            processes.append(stack.enter_context(TimingProcess(path, device, threads)))
        results: list[dict[int, Latency]] = [{} for _ in paths]
        for batch in sorted(batches):  # memory is the peak so far
            times = _in_turns(processes, batch, rounds, seconds, limit, say)
            for i, rounds_of_file in enumerate(times):
                results[i][batch] = Latency.of(batch, rounds_of_file, processes[i].memory_mb)
        starts = [math.nan if limit.is_over else 1e3 * float(np.median(x.start_times())) for x in processes]
        return [Timing(latency, start) for latency, start in zip(results, starts, strict=True)]


def _in_turns(
    processes: Sequence[TimingProcess],
    batch: int,
    rounds: int,
    seconds: float,
    limit: TimeLimit,
    say: Callable[[str], None],
) -> list[list[list[float]]]:
    """Return the times of each file's runs, by round: as many rounds of each, also where the limit cuts them short."""
    times: list[list[list[float]]] = [[] for _ in processes]
    for turn in range(rounds):
        say(f"batch {batch}, round {turn + 1} of {rounds}")
        for i in Random(turn).sample(range(len(processes)), len(processes)):  # no file has a fixed neighbour
            if limit.is_over:
                whole = min(map(len, times))
                if whole < FEWEST_TURNS:
                    raise TimeIsUp
                return [rounds_of_file[:whole] for rounds_of_file in times]
            times[i].append(processes[i].time(batch, seconds))
    return times
