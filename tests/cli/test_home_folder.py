"""A leading `~` is the home folder wherever a path is written: in a flag, in YAML, in Python."""

from pathlib import Path

import pytest
from image_tree import image_tree
from make_run import make_run

import zoo
from zoo.callbacks import LayerHistory
from zoo.cli import run
from zoo.cli._parser import Parser
from zoo.cli.train import read_recipe
from zoo.comparison import Contender
from zoo.data import open_data
from zoo.errors import UserError
from zoo.files import user_path
from zoo.runs.checkpoint import Checkpoint
from zoo.runs.config import TrainConfig
from zoo.runs.recipes import recipe_path

PATHS = ("data_dir", "weights", "init", "teacher", "out")


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    """A home folder, and a working folder beside it in which nothing may be left."""
    folder, here = tmp_path / "home", tmp_path / "here"
    for needed in (folder, here):
        needed.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(here)
    return folder


def test_only_a_leading_tilde_of_a_known_user_is_a_home_folder(home: Path) -> None:
    for typed, meant in (("~/a", home / "a"), ("~", home), ("a/~/b", Path("a/~/b")), ("a~", Path("a~"))):
        assert user_path(typed) == meant
        assert user_path(Path(typed)) == meant
    assert user_path("~no_such_user/a") == Path("~no_such_user/a")


def test_a_run_lies_in_one_folder(home: Path) -> None:
    small = ["--arch", "test_resnet", "--epochs", "1", "--n", "20", "--trainer.enable_progress_bar", "false"]
    run(["train", *small, "--device", "cpu", "--precision", "32-true", "--out=~/mine"])
    files = {"card.json", "config.yaml", "last.ckpt", "layers.csv", "metrics.csv", "model.safetensors"}
    assert {path.name for path in (home / "mine").iterdir()} == files
    run(["export", "~/mine", "--target", "generic", "-o", "~/mine.onnx"])
    run(["report", "~/mine", "--out=~/page.html"])
    with pytest.raises(UserError, match="mine is finished"):
        run(["train", "--resume=~/mine"])
    assert {"mine", "mine.onnx", "mine.onnx.json", "page.html", "page.json"} <= {path.name for path in home.iterdir()}
    assert not list(Path().iterdir())


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("written", ["flag", "yaml", "python"])
def test_every_path_of_a_recipe_may_begin_with_a_tilde(home: Path, key: str, written: str) -> None:
    if key == "init":  # its card is read together with the flags
        make_run(home / "mine")
    if written == "python":
        config = TrainConfig(**{key: Path("~/mine") if key in ("data_dir", "weights", "out") else "~/mine"})
    else:
        (home / "mine.yaml").write_text(f"{key}: ~/mine\n")
        flags = ["--config", "~/mine.yaml"] if written == "yaml" else [f"--{key.replace('_', '-')}=~/mine"]
        config, _, _ = read_recipe(Parser(prog="zoo train"), flags)
    assert str(getattr(config, key)) == str(home / "mine")


def test_lists_of_paths_may_begin_with_a_tilde(home: Path) -> None:
    parser = Parser()
    parser.add_argument("runs", nargs="+", type=Path)
    assert parser.parse_args(["~/a", "b"]).runs == [home / "a", Path("b")]


def test_paths_in_python_may_begin_with_a_tilde(home: Path) -> None:
    make_run(home / "mine")
    image_tree(home / "images")
    (home / "mine.yaml").write_text("epochs: 1\n")
    model = zoo.load("~/mine")
    assert open_data("imagefolder", data_dir=Path("~/images"), image_size=8).class_names == ("cat", "dog")
    assert zoo.export_onnx(model, "~/mine.onnx", (1, 8, 8)).path == home / "mine.onnx"
    assert Contender.parse("~/mine").folder == home / "mine"
    assert recipe_path("~/mine.yaml") == home / "mine.yaml"
    assert LayerHistory(Path("~/layers.csv")).path == home / "layers.csv"
    with pytest.raises(UserError, match=f"no checkpoint at {home / 'mine.ckpt'}"):
        Checkpoint(Path("~/mine.ckpt"))
