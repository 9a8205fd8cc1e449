"""Several models at once have the figures that they have one after another."""

import importlib
import os
import shutil
from pathlib import Path

import pytest

from zoo.cli import run as cli
from zoo.cli._jobs import each, side_by_side
from zoo.errors import UserError

BUNDLED = Path(__file__).parents[2] / "zoo/hub/bundled"

NAMES = ("test_resnet.robust_lowrank50_at_digits", "test_resnet.robust_lowrank50_digits")
BRIEF = ("--n", "40", "--attacks", "fgsm", "--eps", "0.05", "--device", "cpu")


def copies(folder: Path) -> list[str]:
    return [str(shutil.copytree(BUNDLED / name, folder / name)) for name in NAMES]


def show(target: str) -> None:
    """Stand for the work of a command."""
    print(target, os.environ["OMP_NUM_THREADS"])
    if target == "bad":
        raise UserError("it is bad")


def test_work_on_several_is_shown_in_their_order_and_failures_last(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match=r"^1 of 3 failed: bad: it is bad$"):
        each(show, ["c", "bad", "a"], 2)
    assert capsys.readouterr().out == "c\n\nc 1\n\nbad\n\nbad 1\n\na\n\na 1\n\n"


def threads(library: str) -> int:
    return importlib.import_module(library).get_num_threads()


def test_a_process_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(side_by_side(threads, ["torch"], 1)) == [1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_evaluations_at_once_are_those_one_after_another(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from zoo.runs.run import Run

    cli(["evaluate", *copies(tmp_path / "one"), *BRIEF])
    first = capsys.readouterr().out
    cli(["evaluate", *copies(tmp_path / "two"), *BRIEF, "--jobs", "2"])
    second = capsys.readouterr().out
    assert second == first.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    for name in NAMES:
        cards = [Run(tmp_path / folder / name).card for folder in ("one", "two")]
        assert cards[0] == cards[1]
        assert any(e.n == 40 for e in cards[0].evaluations)


def test_what_fails_is_named_and_the_others_are_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from zoo.runs.run import Run

    good, bad = copies(tmp_path)
    (Path(bad) / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=rf"^1 of 2 failed: {bad}: .*0 bytes, its card says"):
        cli(["evaluate", bad, good, *BRIEF])
    assert any(e.n == 40 for e in Run(Path(good)).card.evaluations)
    assert f"saved in {good}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["evaluate", NAMES[0], "no_such_model", *BRIEF], "no_such_model"),
        (["evaluate", NAMES[0], NAMES[0], *BRIEF], "given twice"),
        (["evaluate", *NAMES, *BRIEF, "--jobs", "0"], "--jobs must be at least 1"),
        (["verify", "--all", "true", "--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_mistakes_are_told_before_any_work(argv: list[str], words: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        cli(argv)
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_ended_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"was ended before its work was done.*fewer --jobs"):
        list(side_by_side(os._exit, [1], 1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hub_is_verified_at_once_as_one_after_another(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    from zoo.hub.index import Index
    from zoo.publishing.publish import entry_of

    copies(tmp_path)
    index = Index(models={name: entry_of(tmp_path / name) for name in NAMES})
    (tmp_path / "index.json").write_bytes(index.to_json())
    monkeypatch.setattr("zoo.hub.search.BUNDLED", tmp_path)
    cli(["verify", "--all", "true", "--hub", str(tmp_path), "--n", "40"])
    first = capsys.readouterr().out
    cli(["verify", "--all", "true", "--hub", str(tmp_path), "--n", "40", "--jobs", "2"])
    assert capsys.readouterr().out.split() == first.split()
    assert "2 models agree with their cards" in first
