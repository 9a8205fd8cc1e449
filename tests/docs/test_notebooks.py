"""The notebooks run, and what is stored in them is what they print."""

from pathlib import Path

import pytest
from documented import run_notebook, shape

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for stored, printed in run_notebook(notebook):
        assert shape(stored) == shape(printed)


def test_there_are_notebooks() -> None:
    assert EXAMPLES
