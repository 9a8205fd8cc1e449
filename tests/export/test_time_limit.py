"""An export keeps to its time limit, on however busy a machine: what is left then is estimated, and said."""

from pathlib import Path

import pytest
from make_run import make_run
from torch import nn

from zoo.errors import UserError
from zoo.export import latency_measured
from zoo.export.choice import choose_forms
from zoo.export.export_report import lines, report
from zoo.export.exporter import export_model
from zoo.export.settings import ExportSettings
from zoo.export.target import Target, open_target
from zoo.latency import measure, time_limit
from zoo.latency.cache import TimeCache
from zoo.latency.time_limit import TimeIsUp, TimeLimit
from zoo.lowrank.factorize import factorize, fold
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run


class Clock:
    """Seconds that pass only when something takes them."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_limit, "time", clock)
    return clock


@pytest.fixture
def busy(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A machine on which each request to a timing process takes a second."""

    class Process:
        memory_mb = 0.0

        def __init__(self, path: Path, device: str, threads: int) -> None:
            self.path = path

        def __enter__(self) -> "Process":
            return self

        def __exit__(self, *args: object) -> None:
            pass

        def time(self, batch: int, seconds: float) -> list[float]:
            clock.now += 1
            return [0.001 * len(str(self.path))]

        def start_times(self) -> list[float]:
            clock.now += 1
            return [0.1]

    monkeypatch.setattr(measure, "TimingProcess", Process)
    return clock


def timed(limit: TimeLimit, said: list[str], rounds: int = 25) -> list[measure.Timing]:
    files = [Path("a"), Path("bb"), Path("ccc")]
    return measure.measure(
        files, device="cpu", threads=1, batches=(1,), rounds=rounds, seconds=0.0, limit=limit, say=said.append
    )


def test_rounds_end_with_the_limit_and_all_files_have_as_many(busy: Clock) -> None:
    said: list[str] = []
    found = timed(TimeLimit(30.5), said)
    assert busy.now <= 31.5  # one request beyond it
    assert [len(x.latency[1].round_ms) for x in found] == [10, 10, 10]
    assert [x.latency[1].median_ms for x in found] == pytest.approx([1, 2, 3])
    assert said[0] == "batch 1, round 1 of 25"
    assert len(said) == 11


def test_too_few_rounds_are_no_result(busy: Clock) -> None:
    with pytest.raises(TimeIsUp):
        timed(TimeLimit(12.0), [])
    assert busy.now <= 13
    with pytest.raises(TimeIsUp):
        timed(TimeLimit(0.0), [])
    assert busy.now <= 13  # not even a process is started


def test_without_a_limit_every_round_is_timed(busy: Clock) -> None:
    assert [len(x.latency[1].round_ms) for x in timed(TimeLimit(), [])] == [25, 25, 25]


def model() -> nn.Module:
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return fold(factorize(nn.Sequential(*layers, nn.Linear(64, 10)), {"2": 9, "5": 4})).eval()


def test_layers_that_are_not_timed_are_chosen_by_the_cost_model(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is still timed; the same layer is read from the cache when no time is left at all."""

    def slow(run: object, seconds: float) -> list[float]:
        clock.now += 0.1
        return [0.001]

    monkeypatch.setattr(latency_measured, "time_runs", slow)
    monkeypatch.setattr(latency_measured, "ROUNDS", 2)
    cache, said = TimeCache("cpu", 1, tmp_path), []

    def choices(limit: TimeLimit) -> dict:
        cost = latency_measured.MeasuredCost("cpu", 1, cache, limit)
        return choose_forms(model(), (1, 8, 8), Target("cpu", 16, cost, 1, limit), said.append)

    generic = choose_forms(model(), (1, 8, 8), open_target("generic"))
    first = choices(TimeLimit(2 * 0.1 * len(generic["2"].costs) + 0.05))
    assert {name: choice.is_estimated for name, choice in first.items()} == {"2": False, "5": True}
    assert (" ms" in first["2"].reason, "cost " in first["5"].reason) == (True, True)
    assert (first["5"].form, first["5"].costs) == (generic["5"].form, generic["5"].costs)
    assert said == ["choosing the form of each layer: 1 of 2", "choosing the form of each layer: 2 of 2"]
    assert choices(TimeLimit(0.0))["2"].costs == first["2"].costs
    assert first["5"].to_dict()["estimated"]
    assert "estimated" not in first["2"].to_dict()


def test_a_file_is_written_when_no_time_is_left_and_the_report_says_what_was_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    run: Run = make_run(tmp_path / "run")
    done = export_model(run.model(), Metadata.of(run.card), tmp_path / "a.onnx", ExportSettings(time_limit=0.0))
    assert done.path.is_file()
    assert done.graphs == {}
    assert report(done)["estimated_layers"] == list(done.choices)
    text = "\n".join(lines(done))
    n = len(done.choices)
    assert f"the time limit of 0 s is over: the forms of {n} of {n} layers are estimated" in text
    assert "whole graphs were not compared; with a longer --time-limit" in text
    assert "measured on this processor" not in text
    generic = export_model(run.model(), Metadata.of(run.card), tmp_path / "b.onnx")
    assert "time limit" not in "\n".join(lines(generic))


def test_a_limit_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match="time-limit must be 0 seconds or more, not -1"):
        ExportSettings(time_limit=-1.0)
