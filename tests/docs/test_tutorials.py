"""The tutorials work as they stand there."""

import inspect
import re
from pathlib import Path

import pytest
from documented import run_page, shape

from zoo.cli import run as run_command
from zoo.comparison import plan
from zoo.evaluation import sanity
from zoo.runs.run import Run

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_tutorial_is_run_here() -> None:
    assert {f"test_{path.stem}" for path in TUTORIALS.glob("*.md")} <= set(globals())


def test_photos_to_phone(tmp_path: Path) -> None:
    names = run_page(TUTORIALS / "photos_to_phone.md")
    assert Run(tmp_path / "phone").card.class_names == ("flower", "temple")
    assert names["logits"].shape == (1, 2)


def test_compress_my_checkpoint(tmp_path: Path) -> None:
    run_page(TUTORIALS / "compress_my_checkpoint.md")
    small, recovered = Run(tmp_path / "small").card, Run(tmp_path / "recovered").card
    assert small.compression >= 0.4
    assert recovered.ranks == small.ranks
    assert (tmp_path / "recovered/model.onnx").is_file()


def test_compare_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process: a new one for each training would take seconds to start.
    monkeypatch.setattr(plan, "run_command", lambda arguments, what: run_command(arguments))
    run_page(TUTORIALS / "compare_methods.md")
    assert len(list((tmp_path / "comparison").rglob("card.json"))) == 4
    assert (tmp_path / "comparison/figures.json").is_file()


def test_read_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    page = TUTORIALS / "read_an_evaluation.md"
    run_page(page)
    shown = re.search(r"```text\n(.*?)```", page.read_text(), flags=re.DOTALL)[1]
    assert set(shape(shown)) <= set(shape(capsys.readouterr().out))


def test_every_sign_of_masked_gradients_is_explained() -> None:
    signs = re.findall(r'^        "(\w+)": ', inspect.getsource(sanity), flags=re.MULTILINE)
    assert len(signs) > 4
    page = (TUTORIALS / "read_an_evaluation.md").read_text()
    assert [sign for sign in signs if f"`{sign}`" not in page] == []
