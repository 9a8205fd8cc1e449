"""Ray does what one process does: the same verdicts, trials and weights, also when it loses a worker.

A cluster that RAY_ADDRESS names is used, else each test starts one on this machine.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from zoo.cli import run as zoo
from zoo.engines import open_engine
from zoo.errors import UserError
from zoo.hub.runs import read_run
from zoo.runs.run import CARD, CHECKPOINT, WEIGHTS, Run

cloudpickle = pytest.importorskip("ray.cloudpickle")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a cluster that runs does not have the tests
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TRAIN = ["--arch", "test_resnet", "--epochs", "3", "--n", "20", "--device", "cpu", "--precision", "32-true"]
SWEEP = ["--search", "lr=0.02:0.2:log", "--objective", "clean,parameters", "--sampler", "random", "--prune", "false"]


def dies_once(folder: Path, item: int) -> int:
    """Return the square of a number; the process of item 2 is killed the first time."""
    with (folder / f"{item}").open("a") as file:
        file.write("x")
    if item == 2 and (folder / "2").read_text() == "x":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 99:
        raise UserError("99 is too much")
    return item * item


def test_a_lost_worker_is_replaced_and_no_result_comes_twice(tmp_path: Path) -> None:
    engine = open_engine("ray", 2)
    assert sorted(engine.map(dies_once, tmp_path, range(5))) == [(i, i * i) for i in range(5)]
    assert [(tmp_path / str(i)).read_text() for i in range(5)] == ["x", "x", "xx", "x", "x"]
    with pytest.raises(UserError, match=r"^99 is too much$"):
        list(engine.map(dies_once, tmp_path, [99]))


def test_an_evaluation_has_the_verdicts_of_one_process(tmp_path: Path) -> None:
    found = {}
    for name, more in {"plain": [], "ray": ["--engine", "ray", "--workers", "2", "--batch-size", "16"]}.items():
        folder = tmp_path / name
        folder.mkdir()
        published = read_run("test_resnet.robust_lowrank50_at_digits").folder
        for file in (CARD, WEIGHTS):
            (folder / file).write_bytes((published / file).read_bytes())
        zoo(["evaluate", str(folder), "--attacks", "apgd", "--eps", "0.1", "--n", "60", *more])
        with np.load(folder / "outcomes.npz") as kept:
            found[name] = {key: kept[key] for key in kept.files}
    assert found["plain"].keys() == found["ray"].keys()
    assert all(np.array_equal(found["plain"][key], found["ray"][key]) for key in found["plain"])
    assert Run(tmp_path / "plain").card.evaluations == Run(tmp_path / "ray").card.evaluations


def test_a_sweep_on_two_workers_ends_as_in_one_process(tmp_path: Path) -> None:
    recipe, found = tmp_path / "small.yaml", []
    recipe.write_text("arch: test_resnet\nmethod: robust_lowrank\nepochs: 1\nn: 20\ndevice: cpu\nprecision: 32-true\n")
    for name, more in {"plain": [], "ray": ["--engine", "ray", "--workers", "2"]}.items():
        out = tmp_path / name
        zoo(["sweep", "--config", str(recipe), *SWEEP, "--n", "60", "--trials", "4", "--out", str(out), *more])
        found.append(json.loads((out / "sweep.json").read_text()))
    assert [trial["state"] for trial in found[0]["trials"]] == ["finished"] * 4
    for key in ("trials", "best", "front"):
        assert found[0][key] == found[1][key]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


@pytest.fixture(scope="module")
def by_lightning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes come to that Lightning itself starts."""
    folder = tmp_path_factory.mktemp("lightning") / "run"
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "zoo", "train", *TRAIN, *options], check=True)
    return folder


def test_a_training_on_two_workers_has_the_weights_of_two_processes(by_lightning: Path, tmp_path: Path) -> None:
    zoo(["train", *TRAIN, "--engine", "ray", "--workers", "2", "--out", str(tmp_path / "run")])
    found, expected = weights_of(tmp_path / "run"), weights_of(by_lightning)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert Run(tmp_path / "run").card.training["steps"] == Run(by_lightning).card.training["steps"]
    assert not list(tmp_path.glob(".ray-*"))


def test_a_mistake_in_a_training_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^the loss became .* lower --lr"):
        zoo(["train", *TRAIN, "--lr", "1e30", "--engine", "ray", "--workers", "2", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_training_that_loses_a_worker_goes_on(by_lightning: Path, tmp_path: Path) -> None:
    """The second process is killed as soon as there is a checkpoint."""
    folder = tmp_path / "run"
    watch = (
        "import os, signal, sys, time\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.1)\n"
        "found = [int(x) for x in os.listdir('/proc') if x.isdecimal()]\n"
        "def title(pid):\n"
        "    try: return open(f'/proc/{pid}/cmdline').read()\n"
        "    except OSError: return ''\n"
        "workers = [pid for pid in found if 'RayTrainWorker' in title(pid)]\n"
        "os.kill(max(workers), signal.SIGKILL)\n"
    )
    killer = subprocess.Popen([sys.executable, "-c", watch, str(folder / CHECKPOINT)])
    zoo(["train", *TRAIN, "--engine", "ray", "--workers", "2", "--out", str(folder)])
    assert killer.wait() == 0
    found, expected = weights_of(folder), weights_of(by_lightning)
    assert all(torch.equal(found[name], expected[name]) for name in found)
