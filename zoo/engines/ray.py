"""Ray: workers on the machines of a cluster that runs, or on this machine alone."""

from __future__ import annotations

import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from zoo.engines._base import Device, Engine, LostWorker
from zoo.errors import UserError, first_line
from zoo.runtime.processors import usable_processors

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
RETRIES = 3
"""How often an item is done again whose worker was lost."""
PATIENCE = 5.0
"""Seconds in which a cluster must answer: Ray itself waits for minutes, then ends the process."""
STARTS = 3
"""How often a cluster on this machine is started: on a busy one Ray gives up after 15 s."""
STRATEGY = "ray_ddp"
"""Name of Ray's strategy among Lightning's."""
STORE = 300 * 2**20
"""Bytes of shared memory on this machine; what exceeds them is kept on disk."""


@dataclass(frozen=True)
class Ray(Engine):
    """Workers of a Ray cluster: that of an address, that of RAY_ADDRESS, or else one on this machine alone.

    A cluster on this machine is started for the command and shut down with it.
    """

    address: str | None = None
    """HOST:PORT of a running cluster, ``auto`` for the one that `ray start` began on this machine, or ``local``."""

    library: ClassVar[str] = "ray"
    extra: ClassVar[str] = "ray"

    def map(
        self, function: Callable[[S, T], R], shared: S, items: Sequence[T], device: Device = "cpu"
    ) -> Iterator[tuple[int, R]]:
        """See `Engine.map`."""
        if not items:
            return

        import ray

        with self._cluster():
            gpus, at_once = self._gpus(device), self._at_once(device)
            task = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_retries=RETRIES)(_call)
            kept, waiting = ray.put(shared), deque(enumerate(items))
            running: dict[Any, int] = {}
            while waiting or running:
                while waiting and len(running) < at_once:
                    place, item = waiting.popleft()
                    running[task.remote(function, kept, item, self.threads)] = place
                done = ray.wait(list(running))[0][0]
                yield running.pop(done), _result(done)

    def launch(self, function: Callable[[S, dict[str, Any]], None], argument: S, device: Device = "cpu") -> None:
        """See `Engine.launch`."""
        from ray.train import RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        with self._cluster(shows_output=True), tempfile.TemporaryDirectory(prefix=".ray-", dir=".") as storage:
            gpus, workers = self._gpus(device), self._at_once(device)
            self._check_enough(workers, gpus)
            trainer = TorchTrainer(
                _train,
                train_loop_config={"function": function, "argument": argument, "threads": self.threads},
                scaling_config=ScalingConfig(
                    num_workers=workers, use_gpu=bool(gpus), resources_per_worker=_resources(self.threads, gpus)
                ),
                run_config=RunConfig(storage_path=str(Path(storage).absolute())),
            )
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise _failure(error) from None

    @contextmanager
    def _cluster(self, shows_output: bool = False) -> Iterator[None]:
        """Join the cluster, or start one, for as long as the context lasts."""
        import ray

        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        options = {"log_to_driver": shows_output, "logging_level": "ERROR"}
        if shows_output:  # that of the training alone
            options["logging_config"] = ray.LoggingConfig(log_level="ERROR")
        try:
            if address == "local":
                self._start(options)
            else:
                _check_answers(address)
                ray.init(address=address, **options)
        except UserError:
            raise
        except Exception as error:  # ConnectionError, RuntimeError (another version), ValueError, by address
            ray.shutdown()
            if "AuthenticationError" in str(error.__cause__):
                raise UserError(
                    f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token, and have its token here"
                ) from None
            raise UserError(
                f"no Ray cluster at {address} ({first_line(error)}): look at --engine and RAY_ADDRESS"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()

    def _start(self, options: dict[str, Any]) -> None:
        """Start a cluster on this machine."""
        import ray

        cpus = self.threads * (self.workers or max(1, usable_processors() // self.threads))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        for attempt in range(1, STARTS + 1):
            try:
                ray.init(address="local", num_cpus=cpus, object_store_memory=STORE, include_dashboard=False, **options)
            except Exception as error:
                ray.shutdown()
                if attempt == STARTS:
                    raise UserError(f"Ray cannot start on this machine ({first_line(error)}): is it busy?") from None
            else:
                return

    def _gpus(self, device: Device) -> int:
        """Return the GPUs of a worker, 0 or 1."""
        import ray

        there = ray.cluster_resources().get("GPU", 0) >= 1
        if device == "cuda" and not there:
            raise UserError("--device cuda: no machine of the Ray cluster has a GPU; use cpu or auto")
        return int(there and device != "cpu")

    def _at_once(self, device: Device) -> int:
        """Return how many workers there are to be."""
        import ray

        found = ray.cluster_resources()
        limits = [found.get("CPU", 1) // self.threads] + ([found["GPU"]] if self._gpus(device) else [])
        return self.workers or max(1, int(min(limits)))

    def _check_enough(self, workers: int, gpus: int) -> None:
        """Check that a cluster can run all processes of a training at once: Ray would wait for more machines."""
        import ray

        there = ray.cluster_resources()
        for kind, each in _resources(self.threads, gpus).items():
            if there.get(kind, 0) < each * workers:
                raise UserError(
                    f"the Ray cluster has {there.get(kind, 0):g} {kind}s, and {workers} processes that train together "
                    f"need {each * workers}: give fewer --workers"
                )


def _resources(threads: int, gpus: int) -> dict[str, int]:
    return {"CPU": threads} | ({"GPU": gpus} if gpus else {})


def _check_answers(address: str) -> None:
    """Check that something listens at HOST:PORT: without, Ray ends the process after a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # auto, or a name of Ray's own, which it looks up itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({first_line(error)}): start one with `ray start --head`, or leave "
            "RAY_ADDRESS and address out for one on this machine"
        ) from None


def _call(function: Callable[[S, T], R], shared: S, item: T, threads: int) -> R:
    """Call a function in a worker."""
    import torch

    torch.set_num_threads(threads)
    return function(shared, item)


def _result(reference: Any) -> Any:
    """Return the result of a task that has ended."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise UserError(f"a Ray worker failed: {first_line(error.cause)}") from error
    except RayError as error:
        raise LostWorker(
            f"a Ray worker was lost {RETRIES + 1} times in the same part ({first_line(error)}): what is finished is "
            "kept, and the same command goes on"
        ) from None


def _train(config: dict[str, Any]) -> None:
    """Run one process of a training."""
    import torch
    from lightning.pytorch.strategies import StrategyRegistry
    from lightning.pytorch.utilities import rank_zero_only
    from ray.train import get_context
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    torch.set_num_threads(config["threads"])
    # Lightning sets it when the Trainer is built; what a training does before asks for it, too.
    rank_zero_only.rank = get_context().get_world_rank()  # type: ignore[attr-defined]
    # As many machines of one process each: "auto" counts the GPUs of this machine, and Lightning's own checks multiply.
    # By name: a strategy belongs to one Trainer, and a training builds more of them to check its options.
    StrategyRegistry.register(STRATEGY, RayDDPStrategy, override=True)
    options = {
        "devices": 1,
        "num_nodes": get_context().get_world_size(),
        "strategy": STRATEGY,
        "plugins": [RayLightningEnvironment()],
    }
    config["function"](config["argument"], options)


def _failure(error: Exception) -> UserError:
    """Return the reason why a training ended, as one line."""
    failures = list(getattr(error, "worker_failures", {}).values())
    own = next((failure for failure in failures if isinstance(failure, UserError)), None)
    return own or LostWorker(f"the training lost a Ray worker ({first_line([*failures, error][0])})")
