"""A wrong option is told before a command leaves anything behind."""

from pathlib import Path

import pytest

from zoo.cli import run
from zoo.errors import UserError

NAME = "test_resnet.robust_lowrank50_digits"
MISTAKES = {
    ("compare", "lowrank", "dense", "--", "--epochs", "many"): "expected int, got many",
    ("compare", "lowrank", "--", "--epoch", "3"): "did you mean --epochs",
    ("compare", "lowrank", "--", "--weight-decay", "-1"): "weight-decay must not be negative",
    ("compare", "lowrank", "--seeds", "0,x"): "--seeds 0,x",
    ("publish", NAME, "--hub", "hub", "--tag", "UPPER"): "is not a model name",
    ("publish", NAME, "--hub", "hub", "--licence", "two\nlines"): "SPDX identifier",
    ("export", NAME, "--data-dir", "data"): "digits is built in",
    ("export", NAME, "--time-limit", "-1"): "time-limit must be 0 seconds or more",
    ("export", NAME, "-o", ".", "--layout", "onnx"): "is a folder: give a file name",
    ("evaluate", NAME, "--attacks", "pdg"): "did you mean pgd",
    ("evaluate", NAME, "--n", "0"): "must be at least 1",
    ("compress", "test_resnet", "--weights", NAME, "--seed", "-1"): "seed must be in",
    ("train", "--arch", "test_resnet", "--epochs", "0"): "must be positive",
}


@pytest.mark.parametrize("argv", MISTAKES, ids=" ".join)
def test_nothing_is_left_behind(argv: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=MISTAKES[argv]):
        run(list(argv))
    assert list(tmp_path.iterdir()) == []
