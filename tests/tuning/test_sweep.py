"""A sweep: every trial is a run, processes share it and survive a kill, and its files say what is best."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from zoo.cli import run as zoo
from zoo.cli.sweep import _read
from zoo.errors import Interrupted, UserError
from zoo.runs.run import Run
from zoo.training.trainer import resume

RECIPE = """
arch: test_resnet
method: robust_lowrank
epochs: 2
n: 40
device: cpu
precision: 32-true
"""
SEARCH = ["--search", "lr=0.02:0.2:log", "compression=0.3,0.6"]
COMMON = ["--objective", "clean,parameters", "--sampler", "random", "--n", "60"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


def sweep(recipe: Path, out: Path, trials: int, *more: str) -> dict:
    """Run a sweep, and return its figures."""
    zoo(["sweep", "--config", str(recipe), *SEARCH, *COMMON, "--trials", str(trials), "--out", str(out), *more])
    return json.loads((out / "sweep.json").read_text())


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three trials that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "sweep"
    sweep(recipe, out, 3)
    return out


# The command line.


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--objective", "cr,latancy"], "did you mean latency"),
        (["--objective", "cr,cr"], "each objective once"),
        (["--objective", "sigma_zero"], "unknown objective"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--storage", "sweep.db"], "is not a storage: give journal:DIR"),
        (["--storage", "nosuch://x/y"], "cannot be opened"),
        (["--", "--out", "x"], "leave it out after --"),
        (["--", "--val-fraction", "0"], "no validation images"),
        (["--", "--trainer.devices", "2"], "trains in one process"),
    ],
)
def test_a_sweep_that_makes_no_sense_leaves_no_trial(
    recipe: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    command = ["sweep", "--config", str(recipe), *SEARCH, "--out", str(tmp_path / "s")]
    with pytest.raises(UserError, match=message):
        zoo([*command, *more])
    assert not list(tmp_path.glob("s/trial-*"))


def test_a_value_that_its_option_refuses_is_named_before_any_training(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="quasar"):
        zoo(["sweep", "--config", str(recipe), "--search", "optimizer=sgd,quasar", "--out", str(tmp_path / "s")])
    assert not (tmp_path / "s").exists()


# Trials.


def test_every_trial_is_a_run_that_its_command_describes(finished: Path) -> None:
    figures = json.loads((finished / "sweep.json").read_text())
    assert [trial["state"] for trial in figures["trials"]] == ["finished"] * 3
    for trial in figures["trials"]:
        card = Run(finished / trial["name"]).card
        assert trial["figures"]["parameters"] == card.params
        for key, value in trial["values"].items():
            assert f"--{key}={value}" in card.provenance.command
    assert len({trial["values"]["lr"] for trial in figures["trials"]}) == 3


def test_the_front_holds_what_nothing_beats_and_its_most_accurate_is_the_recipe(finished: Path) -> None:
    figures = json.loads((finished / "sweep.json").read_text())
    points = {t["name"]: (t["figures"]["clean"], -t["figures"]["parameters"]) for t in figures["trials"]}

    def beaten(point: tuple[float, float]) -> bool:
        return any(all(a >= b for a, b in zip(q, point, strict=True)) and q != point for q in points.values())

    assert set(figures["front"]) == {name for name, point in points.items() if not beaten(point)}
    assert figures["best"] == max(figures["front"], key=lambda name: points[name])
    best = next(t for t in figures["trials"] if t["name"] == figures["best"])
    config, _ = _read(["--config", str(finished / "best.yaml")])
    assert (repr(config.lr), str(config.compression)) == tuple(best["values"].values())
    assert config.out is None
    assert yaml.safe_load((finished / "best.yaml").read_text())["epochs"] == 2


def test_the_same_call_does_nothing_and_more_trials_are_added(recipe: Path, finished: Path, tmp_path: Path) -> None:
    before = json.loads((finished / "sweep.json").read_text())
    cards = [path.stat().st_mtime_ns for path in sorted(finished.glob("trial-*/card.json"))]
    assert sweep(recipe, finished, 3) == before
    assert [path.stat().st_mtime_ns for path in sorted(finished.glob("trial-*/card.json"))] == cards
    with pytest.raises(UserError, match=r"holds another sweep \(recipe epochs 2, here 3\): give another --storage"):
        sweep(recipe, finished, 3, "--", "--epochs", "3")
    with pytest.raises(UserError, match="holds the runs of another sweep"):
        sweep(recipe, finished, 3, "--storage", f"sqlite:///{tmp_path / 'other.db'}")


def test_a_sweep_whose_process_died_ends_as_if_nothing_had_happened(
    recipe: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dying_at
) -> None:
    """It died in the second of two epochs of its first trial."""
    out, storage = tmp_path / "s", ["--storage", f"sqlite:///{tmp_path / 'sweep.db'}"]
    with dying_at(14):
        sweep(recipe, out, 3, *storage)
    assert (out / "trial-000/last.ckpt").is_file()
    assert not (out / "trial-000/card.json").exists()
    seen = []

    def watched(folder: Path, *parts, **more) -> Run:
        seen.append(folder)
        return resume(folder, *parts, **more)

    monkeypatch.setattr("zoo.tuning.sweep.resume", watched)
    found, expected = sweep(recipe, out, 3, *storage), json.loads((finished / "sweep.json").read_text())
    assert seen == [out / "trial-000"]
    for key in ("trials", "best", "front", "plan"):
        assert found[key] == expected[key]


@pytest.mark.parametrize(("stop", "code"), [(Interrupted("by a scheduler", 15), 143), (KeyboardInterrupt(), 130)])
def test_an_interruption_keeps_its_signal(
    stop: BaseException, code: int, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> Run:
        raise stop

    monkeypatch.setattr("zoo.tuning.sweep.train", stopped)
    with pytest.raises(Interrupted, match="interrupted in trial-000: the same command continues") as raised:
        sweep(recipe, tmp_path / "s", 1)
    assert raised.value.exit_code == code


def test_a_trial_that_diverges_fails_and_the_others_go_on(recipe: Path, tmp_path: Path) -> None:
    search = ["--search", "lr=0.05,1e30"]
    zoo(["sweep", "--config", str(recipe), *search, *COMMON, "--trials", "2", "--out", str(tmp_path / "s")])
    trials = json.loads((tmp_path / "s/sweep.json").read_text())["trials"]
    states = {trial["values"]["lr"]: trial["state"] for trial in trials}
    assert states == {"0.05": "finished", "1e30": "failed"}
    assert all("lower" in trial["note"] for trial in trials if trial["state"] == "failed")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_processes_one_of_them_killed_end_as_one_does(recipe: Path, tmp_path: Path) -> None:
    """They do not prune, which depends on the trials that are finished by then."""
    calm, shaken = tmp_path / "calm", tmp_path / "shaken"
    command = ["sweep", "--config", str(recipe), *SEARCH, *COMMON, "--prune", "false", "--trials", "12", "--out"]

    def started(out: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", "zoo", *command, str(out)])

    processes = [started(shaken) for _ in range(3)]
    try:
        while not (shaken / "trial-004/last.ckpt").exists():
            assert None in [process.poll() for process in processes]
            time.sleep(0.2)
        processes[0].kill()
        assert [process.wait() for process in processes] == [-signal.SIGKILL, 0, 0]
    finally:
        for process in processes:
            process.kill()
    assert started(shaken).wait() == 0  # what the others had not seen abandoned
    assert started(calm).wait() == 0
    found, expected = (json.loads((out / "sweep.json").read_text()) for out in (shaken, calm))
    assert [trial["state"] for trial in found["trials"]] == ["finished"] * 12
    for key in ("trials", "best", "front"):
        assert found[key] == expected[key]
