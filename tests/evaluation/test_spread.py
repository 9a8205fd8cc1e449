"""An evaluation on the workers of an engine has the verdicts of one process, image by image, and loses no part."""

from pathlib import Path

import pytest
import torch
from in_process import InProcess
from torch import Tensor, nn

import zoo.hub
from zoo.attacks.apgd import APGD
from zoo.attacks.sigma_zero import SigmaZero
from zoo.backbone.folded import folded
from zoo.data import load_test
from zoo.engines import LostWorker
from zoo.errors import UserError
from zoo.evaluation import Origin, Outcomes, Setting, Spread, Sweep, evaluate, searches
from zoo.runs.run import Run

MODEL = Path(zoo.hub.__file__).parent / "bundled" / "test_resnet.robust_lowrank50_at_digits"
SWEEPS = [Sweep(APGD(steps=4), (0.1, 0.12)), Sweep(SigmaZero(steps=4), (20.0,))]
NAMES = searches(SWEEPS, 10)
N = 42


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Tensor, Tensor]:
    run = Run(MODEL)
    images, labels = load_test(
        "digits", data_dir=None, download=False, image_shape=(1, 8, 8), class_names=run.card.class_names, n=N
    )
    return folded(run.model(), (1, 8, 8)), images, labels


@pytest.fixture(scope="module")
def plain(problem) -> Outcomes:
    outcomes = Outcomes()
    evaluate(*problem, SWEEPS, outcomes=outcomes, progress=False)
    return outcomes


def spread(problem, whole: Path, batch_size: int = 20) -> Spread:
    model, images, labels = problem
    setting = Setting(model, SWEEPS, NAMES, batch_size, "fp32", "cpu")
    return Spread(setting, images, labels, whole, Origin.of("me", "digits", 0, images, labels))


def same(one: Outcomes, other: Outcomes) -> bool:
    return all(torch.equal(one.get(name), other.get(name)) for name in NAMES)


@pytest.mark.parametrize(("workers", "batch_size", "parts"), [(1, 20, 3), (None, 250, 1), (4, 250, 4)])
def test_verdicts_are_those_of_one_process(problem, plain, tmp_path, workers, batch_size, parts) -> None:
    whole, engine = tmp_path / "outcomes.npz", InProcess(workers)
    found = spread(problem, whole, batch_size).run(engine, lambda _: None)
    assert same(found, plain)
    assert len(engine.done) == parts
    assert list(tmp_path.iterdir()) == [whole]
    assert same(Outcomes(whole, found.owner), plain)


def test_what_is_finished_is_kept_when_the_workers_are_lost(problem, plain, tmp_path) -> None:
    """The next call has another number of workers, and does the one part that is left."""
    whole, said = tmp_path / "outcomes.npz", []
    with pytest.raises(LostWorker):
        spread(problem, whole).run(InProcess(1, survives=2), said.append)
    assert said == ["part 1 of 3: 14 images evaluated", "part 2 of 3: 14 images evaluated"]
    assert not whole.exists()
    again = InProcess(3)
    assert same(spread(problem, whole).run(again, said.append), plain)
    assert len(again.done) == 1


def test_finished_searches_are_not_done_again(problem, plain, tmp_path) -> None:
    whole = tmp_path / "outcomes.npz"
    kept = Outcomes(whole, Origin.of("me", "digits", 0, *problem[1:]).owner)
    wrong = ~plain.get(NAMES[1])  # so that a search that is done again would show
    for name in NAMES[:2]:
        kept.put(name, wrong if name == NAMES[1] else plain.get(name))
    found = spread(problem, whole).run(InProcess(2), lambda _: None)
    assert torch.equal(found.get(NAMES[1]), wrong)
    idle = InProcess(2, survives=0)
    assert torch.equal(spread(problem, whole).run(idle, lambda _: None).get(NAMES[2]), found.get(NAMES[2]))


def test_more_workers_than_images_are_refused(problem, tmp_path) -> None:
    with pytest.raises(UserError, match="42 images cannot be shared by 43 workers: give at most 42"):
        spread(problem, tmp_path / "outcomes.npz").run(InProcess(43), lambda _: None)
