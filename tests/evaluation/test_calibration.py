"""Calibration in closed form, and on the card of an evaluated run."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zoo.hub
from zoo.cli import run as zoo_command
from zoo.evaluation import calibration_of
from zoo.report.figures import gather
from zoo.report.sections.calibration import calibration as section
from zoo.runs.card import Card

MODEL = Path(zoo.hub.__file__).parent / "bundled" / "test_resnet.robust_lowrank50_at_digits"


def answers(confidence: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probabilities of three classes, of which the first is answered, and the labels."""
    rest = ((1 - confidence) / 2)[:, None]
    return torch.cat([confidence[:, None], rest, rest], 1), torch.where(right, 0, 1)


def test_the_error_is_the_distance_of_confidence_and_accuracy() -> None:
    right = torch.arange(100) < 60
    found = calibration_of(*answers(torch.full((100,), 0.8, dtype=torch.float64), right))
    assert found.ece == pytest.approx(0.2, abs=1e-6)
    [only] = found.bins
    assert (only.n, only.accuracy) == (100, pytest.approx(0.6))
    perfect = calibration_of(*answers(torch.full((100,), 0.6, dtype=torch.float64), right))
    assert perfect.ece == pytest.approx(0, abs=1e-6)


@given(seed=st.integers(0, 2**16), n=st.integers(1, 80))
def test_the_bins_add_up_to_the_error_of_torchmetrics(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = (4 * torch.randn(n, 5, generator=generator, dtype=torch.float64)).softmax(1)
    labels = torch.randint(0, 5, (n,), generator=generator)
    found = calibration_of(probabilities, labels)
    assert sum(x.n for x in found.bins) == found.n == n
    assert found.ece == pytest.approx(sum(x.n / n * abs(x.accuracy - x.confidence) for x in found.bins), abs=1e-6)


def test_accuracy_at_coverage_is_that_of_the_most_confident() -> None:
    confidence = torch.linspace(0.4, 0.99, 100, dtype=torch.float64)
    found = dict(calibration_of(*answers(confidence, torch.arange(100) >= 50)).coverage)
    assert found[0.5] == 1
    assert found[0.8] == pytest.approx(50 / 80)
    assert found[1.0] == 0.5


def test_evaluate_puts_calibration_and_an_l0_curve_on_the_card(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(MODEL, run)
    zoo_command(["evaluate", str(run), "--norms", "L0", "--eps", "2,5,20", "--n", "40", "--device", "cpu"])
    assert "calibration error" in capsys.readouterr().out
    card = Card.load(run / "card.json")
    assert card.calibration is not None
    assert card.calibration.n == 40
    curve = {e.eps: e.accuracy for e in card.evaluations if e.attack == "sigma_zero"}
    assert list(curve) == [2, 5, 20]
    assert card.clean.accuracy >= curve[2] >= curve[5] >= curve[20]
    assert curve[20] < curve[2]
    shutil.copy(run / "card.json", tmp_path / "card.json")
    assert Card.load(tmp_path / "card.json") == card


def test_the_report_shows_the_diagram_or_says_what_measures_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(MODEL, run)
    [figures] = gather([run])
    assert "zoo evaluate RUN" in section([figures]).blocks[0].text
    found = calibration_of(*answers(torch.linspace(0.4, 1, 50, dtype=torch.float64), torch.arange(50) > 20))
    figures.card.model_copy(update={"calibration": found}).save(run / "card.json")
    [figures] = gather([run])
    charts = section([figures]).blocks[1].charts
    assert [chart.name for chart in charts] == ["reliability", "coverage"]
    assert len(charts[0].series[1].points) == len(found.bins)
