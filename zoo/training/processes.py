"""The processes that train one network together: what is refused before they start, and what a change of them means."""

import os
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from zoo.errors import UserError

SHARDING = ("fsdp", "deepspeed", "modelparallel", "xla_fsdp")
"""How the names of strategies begin that keep a part of each weight in each process."""
SHARDING_TYPES = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)
OF_ENGINE = ("devices", "num_nodes", "strategy")
"""Options of Lightning's Trainer that an engine sets."""


def check_strategy(strategy: Any) -> None:
    """Check that every process has whole weights.

    Raises:
        UserError: the strategy cuts them into parts.
    """
    name = str(strategy).lower().replace("_", "")
    if isinstance(strategy, SHARDING_TYPES) or name.startswith(tuple(x.replace("_", "") for x in SHARDING)):
        given = strategy if isinstance(strategy, str) else type(strategy).__name__
        raise UserError(
            f"trainer.strategy {given} keeps a part of each weight in each process, and retraction, clamp and cuts "
            "need whole factors: give ddp"
        )


def check_slurm_tasks(processes: int) -> None:
    """Check that SLURM runs as many tasks as the training has processes.

    With fewer, Lightning trains on as many as there are without a word (Lightning-AI/pytorch-lightning#20391).

    Raises:
        UserError: it runs another number.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return
    tasks = int(os.environ["SLURM_NTASKS"])
    if tasks != processes:
        raise UserError(
            f"SLURM runs {tasks} {'task' if tasks == 1 else 'tasks'}, and the training has {processes} "
            f"{'process' if processes == 1 else 'processes'}: --ntasks-per-node must be --trainer.devices, and --nodes "
            "--trainer.num_nodes; leave --ntasks out"
        )


def check_engine_options(options: dict[str, Any]) -> None:
    """Check that a recipe leaves the processes to the engine.

    Args:
        options: of Lightning's Trainer, as the user gave them.

    Raises:
        UserError: it does not.
    """
    if given := [name for name in OF_ENGINE if name in options]:
        raise UserError(f"--engine sets trainer.{given[0]} itself: leave it out, and give --workers")


def kept_batch(batch: int, began: int | None, now: int) -> int:
    """Return the images of a process in a step, such that all of them take as many as when the training began.

    Learning rate, cuts and ramps count steps: with another number of steps in an epoch they would be over too early, or
    never.

    Args:
        batch: of a process when the training began.
        began: how many processes there were; None: as many as now.
        now: how many there are.
    """
    return batch if began is None else max(1, round(batch * began / now))


def change_of(batch: int, began: int | None, now: int) -> str:
    """Describe what another number of processes changes in a resumed training, ``""`` if it is the same number.

    Args:
        batch, began, now: see `kept_batch`.
    """
    if began is None or began == now:
        return ""
    each = kept_batch(batch, began, now)
    return (
        f"note: the run began in {_processes(began)} and goes on in {now}: each takes {each} images a step instead of "
        f"{batch}, so that steps, learning rates and cuts stay as they were; BatchNorm sees {each} images at a time "
        "and random draws differ, so the figures will not be those of an undisturbed run"
    )


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"
