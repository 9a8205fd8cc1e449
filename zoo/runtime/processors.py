"""How many processors this process may use: a machine often has more."""

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

THREADS = "OMP_NUM_THREADS"


def usable_processors() -> int:
    """Return how many processors this process may use, at least 1.

    Those that it may run on (``taskset``, SLURM, a container's ``--cpuset-cpus``), and no more than its quota of
    processor time is worth (a container's ``--cpus``, a limit in Kubernetes), rounded down: a thread too many uses the
    quota up before its period ends, and then all of them stand still.
    """
    return max(1, int(min(_allowed(), processor_quota())))


def keep_to_quota(environment: MutableMapping[str, str]) -> None:
    """Limit the threads of PyTorch and NumPy to a container's quota, unless the user has chosen their number.

    Left alone they start a thread for each processor that they may run on. They read the variable when they are
    imported.

    Args:
        environment: of the process, such as ``os.environ``.
    """
    if processor_quota() < _allowed():
        environment.setdefault(THREADS, str(usable_processors()))


def _allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the processors that the control groups of this process grant it, infinity where none limits it.

    Args:
        groups: file that lists the control groups, as Linux writes it.
        root: where they are mounted.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:  # another system
        return math.inf
    return min((quota for line in lines for quota in _quotas(line, root)), default=math.inf)


def _quotas(line: str, root: Path) -> Iterator[float]:
    """Yield the quotas of one control group and of those around it; ``line`` is ``ID:CONTROLLERS:PATH``."""
    controllers, path = [*line.split(":", 2), "", ""][1:3]
    if controllers and "cpu" not in controllers.split(","):
        return
    base = root / "cpu" if controllers else root
    group = base / path.strip("/")
    for folder in (group, *group.parents):  # in a container the path may be the host's: its own group lies at the base
        if folder == base.parent:
            return
        try:
            if controllers:  # version 1
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            else:
                quota, period = (folder / "cpu.max").read_text().split()
            if float(quota) > 0:  # version 1 writes -1 for no limit
                yield float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):  # no such file, or version 2's "max"
            continue
