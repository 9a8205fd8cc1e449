"""The commands of docs/own_checkpoint.md work as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from zoo.cli import run as run_command
from zoo.runs.run import Run

PAGE = (Path(__file__).parents[2] / "docs/own_checkpoint.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", PAGE, flags=re.DOTALL)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(code, {})
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert [words[:2] for words in commands] == [["zoo", "compress"], ["zoo", "export"], ["zoo", "train"]]
    for words in commands:
        run_command(words[1:])
    assert Run(tmp_path / "small").card.compression >= 0.5
    assert (tmp_path / "small" / "model.onnx").is_file()
    assert Run(tmp_path / "trained").card.stem == "original"
