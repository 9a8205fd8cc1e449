"""The files for SLURM and Kubernetes call zoo as they say: stand-ins for `srun`, `sbatch` and `zoo` note the calls."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from zoo.evaluation import Shard

FILES = Path(__file__).parents[2] / "examples" / "clusters"


@pytest.fixture
def calls(tmp_path: Path):
    """Return a function that runs a command among the stand-ins, and returns what was called."""
    for name in ("srun", "sbatch", "zoo"):
        stand_in = tmp_path / "bin" / name
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {tmp_path}/calls\n')
        stand_in.chmod(0o755)

    def run(command: list[str], **variables: object) -> list[str]:
        (tmp_path / "calls").unlink(missing_ok=True)
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"} | {k: str(v) for k, v in variables.items()}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []

    return run


def test_a_training_on_slurm_has_a_process_for_each_task_and_goes_on(calls, tmp_path: Path) -> None:
    out, slurm = tmp_path / "out", {"SLURM_JOB_NUM_NODES": 2, "SLURM_NTASKS_PER_NODE": 4}
    command = ["bash", str(FILES / "train.sbatch"), "recipe", str(out), "--lr", "0.1"]
    options = "--trainer.strategy ddp --trainer.num_nodes 2 --trainer.devices 4 --lr 0.1"
    assert calls(command, **slurm) == [f"srun zoo train --config recipe --out {out} {options}"]
    out.mkdir()
    (out / "config.yaml").touch()
    assert calls(command, **slurm) == [f"srun zoo train --resume {out}"]
    (out / "card.json").touch()
    assert calls(command, **slurm) == []
    asked = (FILES / "train.sbatch").read_text()
    assert "--ntasks-per-node" in asked
    assert "--ntasks=" not in asked


def test_an_evaluation_on_slurm_has_all_parts_and_one_merge_after_them(calls) -> None:
    slurm = {"SLURM_ARRAY_TASK_COUNT": 3, "SLURM_ARRAY_TASK_MIN": 1, "SLURM_ARRAY_JOB_ID": 7, "SLURM_CPUS_PER_TASK": 1}
    command, found = ["bash", str(FILES / "evaluate.sbatch"), "my run", "--n", "all"], []
    for k in (1, 2, 3):
        found += calls(command, SLURM_ARRAY_TASK_ID=k, **slurm)
    found += calls(command, SLURM_ARRAY_TASK_ID=1, SLURM_RESTART_COUNT=1, **slurm)
    merges = [call for call in found if call.startswith("sbatch")]
    assert len(merges) == 1
    assert "--dependency=afterok:7" in merges[0]
    assert merges[0].endswith(r"--wrap zoo evaluate my\ run --n all  --merge 3")
    parts = [call for call in found if call.startswith("zoo")]
    assert parts == [f"zoo evaluate my run --n all --shard {k}/3" for k in (1, 2, 3, 1)]


def test_the_pods_of_the_kubernetes_job_evaluate_all_parts(calls) -> None:
    job = yaml.safe_load((FILES / "evaluate.yaml").read_text())
    container = job["spec"]["template"]["spec"]["containers"][0]
    shards = []
    for index in range(job["spec"]["completions"]):
        (call,) = calls([*container["command"], *container["args"]], JOB_COMPLETION_INDEX=index)
        shards.append(Shard.parse(call.rpartition(" ")[2]))
    assert {(shard.k, shard.of) for shard in shards} == {(k, 8) for k in range(1, 9)}
    assert job["spec"]["completionMode"] == "Indexed"
    assert "ReadWriteMany" in (FILES / "evaluate.yaml").read_text()
