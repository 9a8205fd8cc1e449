"""Counts of processors are of those that this process may use, not of the machine's."""

import math
import os
from pathlib import Path

import pytest

from zoo.latency.cache import TimeCache
from zoo.latency.session import default_threads
from zoo.runtime import processors
from zoo.runtime.processors import keep_to_quota, processor_quota, usable_processors

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")


@needs_affinity
def test_processors_that_are_not_allowed_do_not_count(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_processors() == default_threads() == 1
        assert TimeCache("cpu", 1, tmp_path).conditions["processors"] == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("processors_allowed", "quota", "usable", "threads"),
    [(64, math.inf, 64, 2), (64, 4.0, 4, 2), (64, 2.9, 2, 2), (64, 1.5, 1, 1), (64, 0.25, 1, 1), (1, 4.0, 1, 1)],
)
def test_a_quota_is_rounded_down_and_leaves_one(
    processors_allowed: int, quota: float, usable: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors_allowed)), raising=False)
    monkeypatch.setattr(processors, "processor_quota", lambda: quota)
    assert (usable_processors(), default_threads()) == (usable, threads)


@pytest.mark.parametrize(
    ("quota", "chosen", "threads"),
    [(math.inf, {}, None), (8.0, {}, None), (2.5, {}, "2"), (2.5, {"OMP_NUM_THREADS": "7"}, "7")],
)
def test_numerical_libraries_keep_to_a_quota_below_the_processors(
    quota: float, chosen: dict[str, str], threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(processors, "processor_quota", lambda: quota)
    environment = dict(chosen)
    keep_to_quota(environment)
    assert environment.get("OMP_NUM_THREADS") == threads


CASES = {
    "no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
    "a limit of a container": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "the least of all groups around it": (
        "0::/a.slice/b\n",
        {"a.slice/b/cpu.max": "400000 100000", "a.slice/cpu.max": "200000 100000", "cpu.max": "max 100000"},
        2.0,
    ),
    "a path of the host": ("0::/../pods/x\n", {"cpu.max": "50000 100000"}, 0.5),
    "version 1": (
        "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",
        {"cpu/docker/x/cpu.cfs_quota_us": "300000", "cpu/docker/x/cpu.cfs_period_us": "100000"},
        3.0,
    ),
    "version 1 inside a container": (
        "1:cpu:/docker/x\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf
    ),
    "other controllers": ("2:cpuset:/\n", {"cpu.max": "100000 100000"}, math.inf),
    "what cannot be read": ("\nx\n0::/\n", {"cpu.max": "many"}, math.inf),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_quota_of_control_groups(case: str, tmp_path: Path) -> None:
    listed, files, quota = CASES[case]
    (tmp_path / "cgroup").write_text(listed)
    for name, content in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(content)
    assert processor_quota(tmp_path / "cgroup", tmp_path / "root") == quota


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert processor_quota(tmp_path / "none") == math.inf
