"""The early alarm for catastrophic overfitting: what it measures, when it sounds, and what follows."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from make_run import make_run
from saved_weights import same
from torch import Tensor, nn

from zoo.adversaries import ADVERSARIES, Threat
from zoo.adversaries.n_fgsm import NFGSM
from zoo.callbacks import GradientAlignment, InputGradients, OverfittingGuard
from zoo.callbacks.gradient_alignment import mean_cosine
from zoo.cli import run as zoo
from zoo.data import open_data
from zoo.methods.dense import Dense
from zoo.runs.config import TrainConfig
from zoo.training.module import Classifier
from zoo.training.parts import Parts
from zoo.training.trainer import _callbacks

ONE_STEP = {"adversary": "fgsm_rs", "eps": "0.1", "lr": 0.05}


def column(folder: Path, name: str) -> list[tuple[int, float]]:
    with (folder / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_the_cosine_is_that_of_each_image_s_gradients_however_small(scale: float) -> None:
    x = torch.randn(6, 3, 4, 4)
    other = x.clone()
    other[:2] *= 3  # the length does not count
    other[2:4] *= -1
    assert mean_cosine(scale * x, other).item() == pytest.approx(1 / 3, abs=1e-6)
    assert mean_cosine(torch.zeros_like(x), other).item() == 0


def left_by(adversary, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> float | None:
    """Return what a step leaves, as the training takes it."""
    gradients = InputGradients()
    threat = Threat(eps, watch=gradients.begin)
    found = gradients.end(adversary.search(model, images, labels, threat))
    adversary.loss(model, images, found, labels, threat)["loss"].backward()
    cosine = gradients.cosine()
    return None if cosine is None else cosine.item()


@pytest.mark.parametrize("name", ["fgsm_rs", "n_fgsm"])
def test_a_linear_network_s_gradients_are_parallel(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    images, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 2
    assert left_by(ADVERSARIES.get(name)(), model, images, labels, 0.1) == pytest.approx(1, abs=1e-5)


class Valley(nn.Module):
    """The worst image for class 0 is the grey one; beyond it the loss falls again."""

    def forward(self, images: Tensor) -> Tensor:
        distance = (images.flatten(1).mean(1) - 0.5).square()
        return torch.stack([100 * distance, torch.zeros_like(distance)], 1)


@pytest.mark.parametrize(("eps", "cosine"), [(0.05, 1.0), (0.2, -1.0)])
def test_a_step_over_the_worst_point_meets_the_opposite_gradient(eps: float, cosine: float) -> None:
    images, labels = torch.full((4, 1, 8, 8), 0.6), torch.zeros(4, dtype=torch.long)
    assert left_by(NFGSM(noise=0), Valley(), images, labels, eps) == pytest.approx(cosine, abs=1e-4)


def test_an_adversary_that_steps_inside_its_loss_is_not_watched() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    images, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 2
    assert left_by(ADVERSARIES.get("liet")(), model, images, labels, 0.1) is None


def sounded(alarm: GradientAlignment, cosines: list[float]) -> list[int]:
    return [i for i, cosine in enumerate(cosines) if alarm.asks_for_a_probe(cosine)]


@pytest.mark.parametrize(
    ("cosines", "at"),
    [
        ([0.8] * 30 + [0.3] * 2, [31]),
        ([0.8] * 30 + [0.3] * 9, [31, 36]),  # low for longer: looked into every fifth time
        ([0.8] * 30 + [0.3, 0.8, 0.3], []),  # single batches
        ([0.8] * 30 + [0.3, 0.3, 0.8, 0.3, 0.3], [31, 34]),
        ([0.8] * 30 + [0.45] * 3, []),  # more than half of the mean
        ([1 - 0.002 * i for i in range(350)], []),  # networks get less linear slowly
        ([0.8, 0.8, 0.1, 0.1], []),  # a mean of two is none
        ([0.8] * 30 + [float("nan"), float("inf")], []),
        ([0.18] * 30 + [0.085] * 3, []),  # noise
        ([0.9] * 20 + [0.2] * 100, [21, 26, 31, 36, 41]),  # a level that stays becomes the mean
    ],
)
def test_the_alarm_sounds_where_the_cosine_falls_sharply(cosines: list[float], at: list[int]) -> None:
    assert sounded(GradientAlignment(), cosines) == at


@pytest.mark.parametrize("cut", [1, 29, 31, 34])
def test_the_alarm_goes_on_where_it_was(cut: int) -> None:
    cosines = [0.8, 0.7] * 15 + [0.2] * 12 + [0.7] * 10 + [0.1] * 2
    first, second = GradientAlignment(), GradientAlignment()
    before = sounded(first, cosines[:cut])
    second.load_state_dict(first.state_dict())
    assert before + [cut + i for i in sounded(second, cosines[cut:])] == sounded(GradientAlignment(), cosines)


def test_watching_changes_no_bit_of_a_training(train_tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {**ONE_STEP, "trainer": {"log_every_n_steps": 2}}
    watched = train_tiny(name="watched", **recipe)
    monkeypatch.setattr("zoo.training.trainer.GradientAlignment", Callback)
    plain = train_tiny(name="plain", **recipe)
    assert same(watched.folder, plain.folder)
    found = column(watched.folder, "gradient_alignment")
    assert [step for step, _ in found] == list(range(1, watched.card.training["steps"], 2))
    assert all(0 < cosine <= 1 for _, cosine in found)
    assert not column(plain.folder, "gradient_alignment")


def test_a_resumed_training_measures_the_same(train_tiny, dying_at, tmp_path: Path) -> None:
    recipe = {**ONE_STEP, "epochs": 2, "ema": 0.9, "trainer": {"log_every_n_steps": 2}}
    whole = train_tiny(name="whole", **recipe)
    with dying_at(15):
        train_tiny(name="killed", **recipe)
    zoo(["train", "--resume", str(tmp_path / "killed")])
    assert same(whole.folder, tmp_path / "killed")
    assert column(whole.folder, "gradient_alignment") == column(tmp_path / "killed", "gradient_alignment")


def test_an_alarm_is_looked_into_at_once_and_takes_the_epoch_back(train_tiny, monkeypatch, capsys) -> None:
    """The alarm is made to sound in the third step of the second epoch, and the probe to see a collapse there."""
    seen = iter([(0.6, 0.6), (0.1, 0.8), (0.7, 0.7)])
    monkeypatch.setattr(OverfittingGuard, "probe", lambda *_: next(seen))
    at_start: list[dict[str, Tensor]] = []
    remember = Classifier.on_train_batch_start

    def start(self, batch, batch_idx):
        at_start.append({name: p.detach().clone() for name, p in self.named_parameters()})
        remember(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "on_train_batch_start", start)
    probe = train_tiny(name="length", adversary="none")
    length = probe.card.training["steps"]
    at_start.clear()

    def sounds(self, alignment):
        self.seen += 1
        self.low = 2 * int(self.seen == length + 3)
        return bool(self.low)

    monkeypatch.setattr(GradientAlignment, "asks_for_a_probe", sounds)
    run = train_tiny(**ONE_STEP, epochs=2, trainer={"log_every_n_steps": 1})
    assert all(torch.equal(value, at_start[length][name]) for name, value in at_start[length + 3].items())
    assert any(not torch.equal(value, at_start[length][name]) for name, value in at_start[length + 2].items())
    assert [step for step, _ in column(run.folder, "rolled_back")] == [length + 2]
    assert len(column(run.folder, "probe_pgd_accuracy")) == 3
    words = capsys.readouterr().err
    assert "gradient alignment fell from 0.00 to" in words
    assert f"in step {length + 3}" in words
    assert "catastrophic overfitting in epoch 2" in words


@pytest.mark.parametrize(
    ("adversary", "options", "watched"),
    [
        ("n_fgsm", {}, True),
        ("n_fgsm", {"compile": True}, False),  # a second form of the step would be compiled, or captured
        ("n_fgsm", {"cuda_graph": True}, False),
        ("pgd", {}, False),  # takes many steps
    ],
)
def test_what_is_watched(adversary: str, options: dict, watched: bool, tmp_path: Path) -> None:
    data, config, parts = open_data("digits"), TrainConfig(**options), Parts(Dense(), ADVERSARIES.get(adversary)())
    model = make_run(tmp_path / "run", compression=None, method="dense").trained_model()
    module = Classifier(model, parts, data, data.source(train=True), config)
    found = _callbacks(tmp_path, module)
    assert any(isinstance(callback, GradientAlignment) for callback in found) == watched
