"""Out-of-distribution detection: its figures by counting, its scores by hand, and through the command."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_tree import image_tree
from torch import Tensor, nn

import zoo.hub
from zoo.cli import run as zoo_command
from zoo.errors import UserError
from zoo.evaluation.ood import detection, detection_by, fitted
from zoo.report.figures import gather
from zoo.report.sections.calibration import calibration as section
from zoo.runs.card import Card
from zoo.runs.detection import Detection

MODEL = Path(zoo.hub.__file__).parent / "bundled" / "test_resnet.robust_lowrank50_at_digits"


def counted(own: Tensor, other: Tensor) -> tuple[float, float]:
    """Return AUROC by comparing every pair, and FPR95 by trying every threshold."""
    larger, equal = (own[:, None] > other).double().mean(), (own[:, None] == other).double().mean()
    fprs = [(other >= t).double().mean().item() for t in own if (own >= t).double().mean() >= 0.95]
    return (larger + equal / 2).item(), min(fprs)


@given(st.integers(0, 2**16), st.integers(1, 60), st.integers(1, 60), st.floats(0, 3), st.booleans())
@settings(deadline=None, max_examples=40)
def test_the_figures_are_those_of_counting(seed: int, n: int, m: int, shift: float, ties: bool) -> None:
    torch.manual_seed(seed)
    own, other = 30 + shift + torch.randn(n).double(), 30 + torch.randn(m).double()  # energies are far above 1
    if ties:
        own, other = own.round(), other.round()
    found = detection_by("energy", own, other, "noise")
    auroc, fpr95 = counted(own, other)
    assert found.auroc == pytest.approx(auroc, abs=1e-5)
    assert found.fpr95 == pytest.approx(fpr95, abs=1e-5)
    assert (found.n, found.n_other) == (n, m)


def test_scores_that_never_overlap_detect_all_and_equal_ones_nothing() -> None:
    low, high = torch.linspace(20, 21, 40).double(), torch.linspace(30, 31, 40).double()
    perfect, wrong, blind = (detection_by("msp", a, b, "x") for a, b in ((high, low), (low, high), (low, low)))
    assert (perfect.auroc, perfect.fpr95) == (1.0, 0.0)
    assert (wrong.auroc, wrong.fpr95) == (0.0, 1.0)
    assert blind.auroc == pytest.approx(0.5)


class Mean(nn.Module):
    """Logits (10 mean, 0): confident about bright images."""

    def forward(self, images: Tensor) -> Tensor:
        bright = 10 * images.mean((1, 2, 3))
        return torch.stack([bright, torch.zeros_like(bright)], 1)


def test_scores_by_hand() -> None:
    own = torch.full((20, 1, 4, 4), 200, dtype=torch.uint8)
    other = torch.full((30, 3, 8, 8), 20, dtype=torch.uint8)
    msp, energy = detection(Mean().eval(), own, other, "dark")
    assert (msp.score, energy.score, msp.data) == ("msp", "energy", "dark")
    assert (msp.auroc, msp.fpr95, energy.auroc, energy.fpr95) == (1.0, 0.0, 1.0, 0.0)
    assert (msp.n, msp.n_other) == (20, 30)


def test_other_images_get_the_shape_that_the_network_takes() -> None:
    rgb = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    rgb[:, 1] = 100
    grey = fitted(rgb, (1, 8, 8))
    assert grey.shape == (2, 1, 8, 8)
    assert grey.unique().tolist() == [59]  # 0.587 of green
    assert torch.equal(fitted(grey, (3, 8, 8)), grey.expand(-1, 3, -1, -1))
    assert fitted(rgb, (3, 5, 6)).shape == (2, 3, 5, 6)
    assert fitted(rgb, (3, 8, 8)) is rgb


# The command.


def test_it_is_printed_put_on_the_card_and_in_the_report(tmp_path: Path, capsys) -> None:
    run = Path(shutil.copytree(MODEL, tmp_path / "run"))
    image_tree(tmp_path / "photos")
    words = ["evaluate", str(run), "--attacks", "fgsm", "--eps", "0.1", "--n", "40"]
    ood = ["--ood", "imagefolder", "--ood-dir", str(tmp_path / "photos")]
    zoo_command([*words, *ood])
    screen = capsys.readouterr().out
    found = Card.load(run / "card.json").detection
    assert [(x.data, x.score, x.n, x.n_other) for x in found] == [
        ("imagefolder", "msp", 40, 6),
        ("imagefolder", "energy", 40, 6),
    ]
    assert "out-of-distribution detection" in screen
    assert f"{found[0].auroc:.2%}" in screen
    zoo_command([*words, *ood])
    assert len(Card.load(run / "card.json").detection) == 2  # replaced
    titles = [column.title for block in section(gather([run], [])).blocks for column in getattr(block, "columns", [])]
    assert "AUROC, %" in titles
    capsys.readouterr()
    zoo_command(words)
    assert "out-of-distribution" not in capsys.readouterr().out


def test_a_card_keeps_what_was_measured_on_other_data_sets() -> None:
    card = Card.load(MODEL / "card.json")
    one, two = (Detection(data=name, score="msp", auroc=0.5, fpr95=1, n=1, n_other=1) for name in ("a", "b"))
    both = card.with_detection([one]).with_detection([two])
    assert both.detection == (one, two)
    better = one.model_copy(update={"auroc": 0.6})
    assert both.with_detection([better]).detection == (two, better)
    assert json.loads(both.model_dump_json())["detection"][0]["data"] == "a"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ood", "digits"], "the run is of digits too"),
        (["--ood", "svhm"], "--ood svhm: .*svhn"),
        (["--ood", "svhn"], "--ood svhn: .*--ood-dir"),
        (["--ood", "imagefolder"], "--ood imagefolder: imagefolder needs --ood-dir DIR"),
        (["--ood-dir", "."], "--ood-dir is of the data set of --ood"),
        (["--ood", "svhn", "--shard", "1/2"], "--ood looks at all images"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(MODEL, tmp_path / "run"))
    with pytest.raises(UserError, match=message) as error:
        zoo_command(["evaluate", str(run), "--n", "20", *words])
    assert "\n" not in str(error.value)
    assert not (run / "outcomes.npz").exists()
