"""Shared fixtures: small models, finished runs, and real data where it is at hand."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from zoo.evaluation import LipschitzBound, condition_numbers, evaluate, quick_evaluation, sanity
from zoo.evaluation.report import Report
from zoo.methods import Method

# The same examples every time, however slow the machine; `--hypothesis-profile default` draws others.
settings.register_profile("zoo", deadline=None, derandomize=True)
settings.load_profile("zoo")

# Two test processes share two cores; more threads than cores make every barrier wait.
torch.set_num_threads(1)


MEASURED = ("zoo.training.finalize", "zoo.merging.write")
"""Modules that measure a network before they write its card."""


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _brief_measurement() -> Iterator[None]:
    """Measure no attack and no Lipschitz bound after a training: they take three times as long as it does here.

    Tests of what a finished run says of itself are marked ``measured``.
    """

    def brief(deployed, trained, images, labels, sweeps, *, device) -> Report:
        found = evaluate(deployed, images, labels, (), device=device, progress=False)
        unbounded = LipschitzBound(None, "not measured")
        return Report(found, sanity(deployed, images, labels, found), condition_numbers(trained), unbounded)

    with pytest.MonkeyPatch.context() as patch:
        for place in MEASURED:
            patch.setattr(f"{place}.quick_evaluation", brief)
        yield


@pytest.fixture(autouse=True)
def _whole_measurement(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "measured" in request.keywords:
        for place in MEASURED:
            monkeypatch.setattr(f"{place}.quick_evaluation", quick_evaluation)


@pytest.fixture(autouse=True, scope="session")
def _no_times_from_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["ZOO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    """Folder with ``cifar-10-batches-py``, named by ZOO_DATA_DIR; tests that need it are skipped without."""
    folder = Path(os.environ.get("ZOO_DATA_DIR", "data"))
    if not (folder / "cifar-10-batches-py").is_dir():
        pytest.skip("CIFAR-10 is not at hand: set ZOO_DATA_DIR to the folder that holds cifar-10-batches-py")
    return folder


@pytest.fixture
def train_tiny(tmp_path: Path):
    """Return a function that trains test_resnet on the digits for an epoch or two and returns the run."""
    from zoo.adversaries import ADVERSARIES
    from zoo.methods import METHODS
    from zoo.runs.config import TrainConfig
    from zoo.training.trainer import train

    def run(
        method: str | Method = "robust_lowrank",
        name: str = "run",
        overwrite: bool = False,
        adversary: str = "none",
        **changes,
    ):
        options = {"arch": "test_resnet", "epochs": 1, "n": 60, "device": "cpu", "precision": "32-true"}
        method = METHODS.get(method)() if isinstance(method, str) else method
        if method.fine_tunes and not changes.keys() & {"init", "weights"}:
            options |= {"init": "test_resnet.robust_lowrank50_at_digits"}
        config = TrainConfig(**(options | {"out": tmp_path / name} | changes))
        return train(config, method, ADVERSARIES.get(adversary)(), overwrite=overwrite)

    return run


@pytest.fixture
def dying_at(monkeypatch: pytest.MonkeyPatch):
    """Return a context in which a training must die at a step."""
    from zoo.training.module import Classifier

    original = Classifier.training_step

    @contextmanager
    def context(step: int):
        def dies(self: Classifier, batch: tuple, batch_idx: int) -> torch.Tensor:
            if self.trainer.global_step == step:
                raise ConnectionError("the machine went away")
            return original(self, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "training_step", dies)
            with pytest.raises(ConnectionError):
                yield

    return context
