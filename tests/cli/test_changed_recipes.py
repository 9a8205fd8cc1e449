"""A recipe that is changed at random is accepted, or refused in one line."""

from pathlib import Path

import pytest
import yaml
from changed_content import SEEDS, VALUES, changed, damaged, examples, is_read_or_refused_in_one_line
from hypothesis import given

from zoo.cli._parser import Parser
from zoo.cli.train import read_recipe
from zoo.runs.recipes import FOLDER, recipe_names

KEYS = (
    "trainer", "regularize", "finish", "n", "weights", "init", "warmup", "schedule", "nonsense", "config", "resume", 3,
    None, "method.tau", "seed", "ema", "awp", "optimizer", "overwrite",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changed")


def read_or_refuse(text: str, path: Path) -> None:
    path.write_text(text)
    argv = ["--config", str(path)]
    assert is_read_or_refused_in_one_line(lambda: read_recipe(Parser(prog="zoo train"), argv))


@given(SEEDS)
@examples(20)
def test_a_changed_recipe_is_read_or_refused_in_one_line(folder: Path, seed: int) -> None:
    names = recipe_names()
    recipe = yaml.safe_load((FOLDER / f"{names[seed % len(names)]}.yaml").read_text())
    read_or_refuse(damaged(yaml.safe_dump(changed(recipe, seed, KEYS)), seed), folder / "mine.yaml")


@pytest.mark.parametrize("key", ["method", "adversary", "trainer", "momentum", "eps", "data_dir"])
def test_a_key_without_a_value_is_refused_in_one_line_or_is_left_out(key: str, tmp_path: Path) -> None:
    read_or_refuse(f"{key}: null\n", tmp_path / "mine.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("key", ["method", "adversary", "trainer", "trainer.devices", "eps", "lr", "epochs", "config"])
def test_a_value_that_makes_no_sense_is_refused_in_one_line(key: str, value: object, tmp_path: Path) -> None:
    first, _, second = key.partition(".")
    read_or_refuse(yaml.safe_dump({first: {second: value} if second else value}), tmp_path / "mine.yaml")
