"""Help without PyTorch says what the dataclasses say, and an overview what there is."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from docstring_parser import parse_from_object

from zoo.cli import run
from zoo.cli import train as train_command
from zoo.cli._parser import Parser
from zoo.cli._plugin_flags import FLAGS, PluginFlag
from zoo.cli._request import Request
from zoo.cli._source import ClassText, read_class
from zoo.cli._train_help import ADVERSARIAL, COMMON, START, train_help
from zoo.errors import UserError
from zoo.runs.config import TrainConfig

ALL = [*FLAGS.items(), ("attack", PluginFlag("attack", "zoo.attacks", "ATTACKS", "attacks"))]
ALL.append(("probe", PluginFlag("probe", "zoo.probes", "PROBES", "probes")))
PLUGINS = [pytest.param(kind, name, id=f"{flag}-{name}") for flag, kind in ALL for name in kind.names()]


def assert_same(read: ClassText, cls: type) -> None:
    """See that what is read from a file is what the imported class says."""
    texts: dict[str, str] = {}
    for owner in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        own = {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(owner).params}
        texts |= {name: own.get(name, "") for name in vars(owner).get("__annotations__", {})}
    hints, fields = get_type_hints(cls), {field.name: field for field in dataclasses.fields(cls)}
    assert {field.name for field in read.fields} == set(fields)
    assert read.summary == (cls.__doc__ or "").strip().partition("\n")[0]
    for field in read.fields:
        assert field.text == texts.get(field.name, "")
        assert field.choices == (get_args(hints[field.name]) if get_origin(hints[field.name]) is Literal else ())
        assert ("None" in field.types) == (type(None) in get_args(hints[field.name]))
        if fields[field.name].default is not dataclasses.MISSING:
            assert field.default == fields[field.name].default


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_says_the_same_read_and_imported(kind: PluginFlag, name: str) -> None:
    assert_same(kind.read(name), kind.plugins().get(name))


def test_the_kinds_are_those_of_the_packages() -> None:
    for kind in FLAGS.values():
        plugins = kind.plugins()
        assert (plugins.kind, plugins.package, plugins.names()) == (kind.kind, kind.package, kind.names())


def test_the_configuration_says_the_same_read_and_imported() -> None:
    assert_same(read_class("zoo.runs.config", "TrainConfig"), TrainConfig)


@pytest.mark.parametrize("method", ["robust_lowrank", "csam"])
def test_help_has_every_option_of_the_parser(method: str) -> None:
    request = Request.read(["--method", method, "--adversary", "trades", "--regularize", "weight_robust"])
    words = [line.split()[0] for line in train_help(request).splitlines() if line.startswith("  --")]
    parser = Parser(prog="zoo train")
    train_command.add_arguments(parser, request.names)
    options = [option.removesuffix(".name") for action in parser._actions for option in action.option_strings]
    own = [o for o in options if not o.startswith("--trainer") and o not in ("-h", "--help")]
    assert sorted(words) == sorted({*own, "--trainer.NAME", "--engine", "--workers"})


def test_help_puts_the_common_options_first_and_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = train_help(Request.read([]))
    assert max(map(len, text.splitlines())) <= 80
    options = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert options[: len(COMMON) + 1] == ["--config", *(f"--{name.replace('_', '-')}" for name in COMMON)]
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles[:4] == ["common options:", "the recipe in detail:", "adversarial training:", "start:"]
    assert text.count("--trainer.NAME") == 1
    assert {*COMMON, *ADVERSARIAL, *START} <= {f.name for f in dataclasses.fields(TrainConfig)} | FLAGS.keys()


def test_help_is_of_the_plugins_that_the_command_line_names(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("method: lowrank(init=random)\nadversary: {name: trades}\n")
    with pytest.raises(SystemExit) as stop:
        run(["train", "--config", str(config), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--method.init" in text
    assert "--adversary.beta" in text
    assert "--method.tau X" not in text
    with pytest.raises(UserError, match="did you mean robust_lowrank"):
        run(["train", "--method", "robust_lowrnk", "--help"])


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["train", "--adversary", "trades", "--help"]])
def test_help_needs_neither_torch_nor_lightning(argv: list[str]) -> None:
    code = (
        "import sys; from zoo.cli import run\n"
        f"try: run({argv})\nexcept SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'timm', 'lightning', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_overview_is_by_task_and_needs_no_parser(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run([])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        "train:", "measure:", "deploy:", "share and find models:", "compare:", "more:",
    ]  # fmt: skip
    assert lines.index("train:") + 1 == next(i for i, line in enumerate(lines) if line.startswith("  train "))
    code = "import sys; from zoo.cli import run; run([]); sys.exit('jsonargparse' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
