"""A run that was compressed without data is measured on the data that are given, and says so where none are."""

from pathlib import Path

import pytest
from make_run import DIGITS, make_run

from zoo.cli import run as run_command
from zoo.errors import UserError
from zoo.runs.run import Run

QUICK = ["--attacks", "fgsm", "--norms", "Linf", "--eps", "0.01", "--n", "20", "--device", "cpu"]
NUMBERED = tuple(f"class_{i}" for i in range(10))


def test_given_data_are_used_and_recorded_with_the_names_of_their_classes(tmp_path: Path, capsys) -> None:
    folder = make_run(tmp_path / "run", data="", class_names=NUMBERED).folder
    run_command(["evaluate", str(folder), "--data", "digits", *QUICK])
    card = Run(folder).card
    assert (card.data, card.class_names) == ("digits", DIGITS)
    assert card.clean is not None
    assert card.clean.n == 20
    assert "on digits" in capsys.readouterr().out
    run_command(["evaluate", str(folder), *QUICK])  # the next command knows them


def test_names_of_classes_that_a_checkpoint_gave_are_not_replaced(tmp_path: Path) -> None:
    names = tuple(f"animal {i}" for i in range(10))
    folder = make_run(tmp_path / "run", data="", class_names=names).folder
    with pytest.raises(UserError, match="digits has a class 0 here where the model has animal 0"):
        run_command(["evaluate", str(folder), "--data", "digits", *QUICK])


def test_without_data_one_line_says_what_to_give(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", data="", class_names=NUMBERED).folder
    with pytest.raises(UserError, match=r"compressed without data, so it names no data set: .* --data NAME"):
        run_command(["evaluate", str(folder), *QUICK])


@pytest.mark.parametrize(
    ("shape", "data", "told"),
    [
        ((1, 8, 8), "cifar", "did you mean cifar10"),
        ((3, 16, 16), "digits", "digits have 8 x 8 pixels in 1 channels, the model takes 16 x 16 pixels in 3"),
    ],
)
def test_data_that_do_not_fit_are_refused(shape: tuple[int, int, int], data: str, told: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", data="", class_names=NUMBERED, image_shape=shape).folder
    with pytest.raises(UserError, match=told):
        run_command(["evaluate", str(folder), "--data", data, *QUICK])


def test_the_data_of_a_training_are_not_replaced(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run").folder
    with pytest.raises(UserError, match=r"--data cifar10: .* is of digits, and so are its figures: leave --data out"):
        run_command(["evaluate", str(folder), "--data", "cifar10", *QUICK])


def test_a_published_model_is_copied_only_once_the_options_have_passed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "test_resnet.robust_lowrank50_digits"
    for wrong, told in ((["--eps", "8"], "8/255"), (["--data", "cifar10"], "leave --data out")):
        with pytest.raises(UserError, match=told):
            run_command(["evaluate", name, *wrong])
        assert not (tmp_path / "runs").exists()
