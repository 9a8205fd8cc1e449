"""Several processes train one network: what is refused, and how a run goes on in another number of them."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from in_process import InProcess

from zoo.cli._parser import Parser
from zoo.cli.train import read_recipe
from zoo.engines import LostWorker
from zoo.errors import UserError
from zoo.methods import METHODS
from zoo.runs.run import CHECKPOINT, CONFIG
from zoo.training.processes import change_of, check_slurm_tasks, kept_batch
from zoo.training.spread import train_on
from zoo.training.trainer import resume

SCRIPT = Path(__file__).parents[1] / "every_method_twice.py"


def recipe_of(folder: Path):
    return read_recipe(Parser(prog="zoo train"), ["--config", str(folder / CONFIG)])[:2]


# What is refused.


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_cpu_offload", "deepspeed_stage_2", "model_parallel"])
def test_strategies_that_cut_weights_are_refused_with_the_reason(train_tiny, tmp_path: Path, strategy: str) -> None:
    with pytest.raises(UserError, match=f"trainer.strategy {strategy} keeps a part .* need whole factors: give ddp"):
        train_tiny(trainer={"strategy": strategy})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("tasks", "processes", "fits"), [(2, 2, True), (1, 2, False), (4, 1, False)])
def test_slurm_must_run_as_many_tasks_as_there_are_processes(monkeypatch, tasks, processes, fits) -> None:
    for name, value in {"SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": 4, "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, str(value))
    if fits:
        check_slurm_tasks(processes)
    else:
        with pytest.raises(UserError, match=f"SLURM runs {tasks} tasks?, and the training has {processes} process"):
            check_slurm_tasks(processes)
        monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
        check_slurm_tasks(processes)


# Another number of processes.


@pytest.mark.parametrize(("began", "now"), [(1, 2), (4, 2), (2, 3), (3, 1)])
def test_all_processes_together_take_as_many_images_as_before(began: int, now: int) -> None:
    batch = 128
    assert kept_batch(batch, began, now) * now == pytest.approx(batch * began, abs=now / 2)
    assert kept_batch(batch, None, now) == kept_batch(batch, now, now) == batch
    assert f"{kept_batch(batch, began, now)} images a step instead of 128" in change_of(batch, began, now)
    assert change_of(batch, now, now) == change_of(batch, None, now) == ""


def test_a_run_of_two_processes_goes_on_in_one_with_the_same_steps(train_tiny, dying_at, tmp_path, capsys) -> None:
    """The first epoch is made by one process with twice the batch, and its files say that there were two."""
    folder, whole = tmp_path / "run", train_tiny("dense", name="whole", batch_size=128, epochs=2)
    with dying_at(12):
        train_tiny("dense", batch_size=128, epochs=2)
    saved = torch.load(folder / CHECKPOINT, weights_only=True)
    assert saved["processes"] == 1
    saved["processes"], saved["recipe"]["batch_size"] = 2, 64
    torch.save(saved, folder / CHECKPOINT)
    changed = yaml.safe_load((folder / CONFIG).read_text()) | {"batch_size": 64}
    (folder / CONFIG).write_text(yaml.safe_dump(changed))
    capsys.readouterr()
    config, plugins = recipe_of(folder)
    run = resume(folder, config, *plugins.values())
    assert (
        "began in 2 processes and goes on in 1: each takes 128 images a step instead of 64" in capsys.readouterr().err
    )
    assert run.card.training["steps"] == whole.card.training["steps"] == 20
    assert torch.equal(
        torch.cat([p.flatten() for p in run.trained_model().parameters()]),
        torch.cat([p.flatten() for p in whole.trained_model().parameters()]),
    )


# The processes of an engine.


def test_a_training_on_an_engine_is_the_same_and_goes_on_when_a_worker_is_lost(train_tiny, dying_at, tmp_path) -> None:
    whole = train_tiny("dense", name="whole", epochs=2)

    class LosesTheFirst(InProcess):
        def launch(self, function, argument, device="cpu") -> None:
            if self.done:
                assert argument.resumed == tmp_path / "run"
                super().launch(function, argument, device)
                return
            self.done.append(0)
            with dying_at(12):
                function(argument, {"devices": 1, "num_nodes": 1})
            raise LostWorker("the worker is gone")

    config = dataclasses.replace(recipe_of(whole.folder)[0], out=tmp_path / "run")
    plugins = tuple(recipe_of(whole.folder)[1].values())
    run = train_on(LosesTheFirst(1), config, plugins)
    assert all(
        torch.equal(one, other)
        for one, other in zip(run.trained_model().parameters(), whole.trained_model().parameters(), strict=True)
    )
    with pytest.raises(UserError, match="holds a finished run"):
        train_on(InProcess(1), config, plugins)


def test_a_training_that_gets_no_further_ends_in_one_line(train_tiny, tmp_path) -> None:
    config, plugins = recipe_of(train_tiny("dense", name="whole").folder)
    config.out = tmp_path / "run"
    with pytest.raises(UserError, match="the worker is gone before its next checkpoint: try again"):
        train_on(InProcess(2, survives=0), config, tuple(plugins.values()))
    config.trainer = {"devices": 2}
    with pytest.raises(UserError, match=r"--engine sets trainer.devices itself: leave it out, and give --workers"):
        train_on(InProcess(2), config, tuple(plugins.values()))


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two gloo processes ended with, for every method."""
    folder = tmp_path_factory.mktemp("twice")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    subprocess.run([*command, str(folder), *METHODS.names()], check=True, timeout=3000)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("method", METHODS.names())
def test_two_processes_have_the_same_weights_ranks_and_cuts(method: str, twice: Path) -> None:
    one, other = (torch.load(twice / f"{method}-{rank}.pt", weights_only=False) for rank in (0, 1))
    assert one["world"] == other["world"] == 2
    assert one["ranks"] == other["ranks"]
    assert one["cuts"] == other["cuts"]
    assert one["weights"].keys() == other["weights"].keys()
    for name, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][name]), name
