"""Another distribution adds a method, by an entry point, without touching a file of zoo."""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.plugins import _entry_points

GUIDE = (Path(__file__).parents[1] / "docs" / "adding_a_method.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def as_a_new_process() -> Iterator[None]:
    """Forget what is installed, before and after."""
    _entry_points.cache_clear()
    yield
    _entry_points.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "penalties"]:
        del sys.modules[name]


def distribution(site: Path, method: str) -> Path:
    """Install a package that holds the method of the guide, as pip would leave it."""
    package, info = site / "penalties", site / "soft_penalties-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    code = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (package / "__init__.py").write_text("")
    (package / "soft.py").write_text(next(block for block in code if "class SoftLowrank" in block))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: soft-penalties\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo.methods]\n{method} = penalties.soft\n")
    return site


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command; return what it prints."""
    with contextlib.suppress(SystemExit):  # of help
        zoo([str(word) for word in words])
    return capsys.readouterr().out


def test_it_is_listed_helped_trained_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site, run = distribution(tmp_path / "site", "soft_lowrank"), tmp_path / "run"
    with monkeypatch.context() as installed:
        installed.syspath_prepend(site)
        assert "soft_lowrank" in output(capsys, "list", "--methods")
        assert "--method.beta" in output(capsys, "train", "--method", "soft_lowrank", "--help")
        words = ["--arch", "test_resnet", "--method", "soft_lowrank(beta=0.05)", "--epochs", "1", "--n", "20", "--out"]
        output(capsys, "train", *words, run)
        assert "beta: 0.05" in (run / "config.yaml").read_text()
        assert "fgsm" in output(capsys, "evaluate", run, "--n", 20, "--attacks", "fgsm")
    _entry_points.cache_clear()
    with pytest.raises(UserError, match="unknown method 'soft_lowrank'"):
        zoo(["evaluate", str(run), "--n", "20", "--attacks", "fgsm"])


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(distribution(tmp_path / "site", "lowrank"))
    with pytest.raises(UserError, match=r"soft-penalties adds lowrank to zoo\.methods"):
        zoo(["list", "--methods"])
