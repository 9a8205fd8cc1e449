"""What a user sees: help, names, and one line for every mistake."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from image_tree import image_tree
from make_run import make_run

from zoo.cli import run
from zoo.errors import UserError
from zoo.runs.recipes import FOLDER, describe_recipe, recipe_names


def error_of(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        run(list(argv))
    return str(caught.value)


MISTAKES = {
    ("trian",): "did you mean train",
    ("train", "--arch", "resnet118"): "did you mean .*resnet",
    ("train", "--method", "robustlowrank"): "did you mean robust_lowrank",
    ("train", "--data", "cifar"): "did you mean cifar10",
    ("train", "--epoch", "3"): "did you mean --epochs",
    ("train", "--epochs", "many"): "^--epochs: expected int, got many$",
    ("train", "--rank-fraction", "x"): "^--rank-fraction: expected float, got x$",
    ("train", "--trainer.num_nodes", "x"): r"^--trainer\.num_nodes: expected int, got x$",
    ("train", "--epochs", "0"): "must be positive",
    ("train", "--compression", "1.5"): "invalid",
    ("train", "--compression", "0.9999"): "removes 9",
    ("train", "--compression", "0.5", "--rank-fraction", "0.5"): "not both",
    ("train", "--macs-reduction", "0.8"): "^--macs-reduction goes with a compression",
    ("train", "--method", "dense", "--compression", "0.5"): "does not compress",
    ("train", "--method.tau", "-1"): "tau",
    ("train", "--device", "tpu"): "device",
    ("train", "--momentum", "1"): r"momentum must be in \[0, 1\)",
    ("train", "--weight-decay", "-1"): "weight-decay must not be negative",
    ("train", "--seed", "-1"): "seed must be in",
    ("train", "--arch", "test_resnet", "--val-fraction", "0.9999"): "leaves none to train on",
    ("train", "--arch", "test_resnet", "--trainer.devices", "0"): "Lightning's Trainer refuses .*devices",
    ("train", "--arch", "test_resnet", "--trainer.strategy", "fast"): "Lightning's Trainer refuses .*strategy",
    ("train", "--arch", "test_resnet", "--trainer.accumulate_grad_batches", "0"): "must be at least 1",
    ("train", "--arch", "test_resnet", "--trainer.check_val_every_n_epoch", "0"): "must be at least 1",
    ("train", "--arch", "test_resnet", "--trainer.val_check_interval", "500"): "an epoch has .* batches only",
    ("train", "--arch", "test_resnet", "--finish", "rift", "--adversary", "fgsm_rs", "--val-fraction", "0"): (
        "rift decides on validation images"
    ),
    ("train", "--arch", "test_resnet", "--adversary", "fgsm_rs", "--trainer.max_steps", "5"): (
        "max_steps is 5: .*would be lost"
    ),
    ("train", "--arch", "test_resnet", "--method", "hydra", "--compression", "0.5", "--trainer.max_steps", "2"): (
        "begins in step 1 and ends in step 1, before any score is trained"
    ),
    ("train", "--arch", "test_resnet", "--weights", "test_resnet.robust_lowrank50_digits", "--method.init", "random"): (
        "--method.init random discards the weights that --weights gives"
    ),
    ("train", "--trainer.enable_checkpointing", "false"): "unknown|unrecognized",
    ("train", "--config", "nowhere.yaml"): "no configuration file",
    ("train", "--config", "digit"): "unknown recipe",
    ("train", "--resume", "nowhere"): "not a run",
    ("train", "--resume", "nowhere", "--epochs", "3"): "leave --epochs out",
    ("train", "--data", "cifar10"): "--data-dir",
    ("evaluate", "nowhere"): "no run at nowhere",
    ("export", "nowhere"): "no run at nowhere",
    ("bench", "nowhere"): "nowhere",
    ("list", "--archs", "resnetxyz*"): "no architecture matches",
    ("list", "--json", "--methods"): "--json lists models",
    ("verify", "--all", "true", "x.y"): "either one NAME or --all",
    ("verify", "x.y", "--all"): "either one NAME or --all",
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_a_mistake_is_answered_in_one_line(argv: tuple[str, ...], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(MISTAKES[argv], error_of(*argv))
    assert not any(tmp_path.iterdir())


def test_a_configuration_whose_method_is_no_name_is_named(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("method: 3\n")
    assert re.search(r"mine\.yaml: method is 3, which is not a name", error_of("train", "--config", str(config)))


def test_the_process_exits_with_one_line_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "train", "--arch", "resnet19"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("zoo: unknown architecture 'resnet19'")


def test_a_message_is_text_and_no_command_to_the_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zoo", "evaluate", "no\x1b]0;title\x07run\u202e"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "zoo: no run at no?]0;title?run?: there is no such folder\n"


def test_a_path_that_cannot_be_written_is_told_with_what_to_look_at(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "folder" / "model.onnx"
    command = [sys.executable, "-m", "zoo", "export", str(tmp_path / "run"), "--target", "generic", "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"zoo: {output.parent} cannot be read or written: Not a directory; "
        "look at the path, its permissions and the space on the disk"
    ]


def test_help_and_version(capsys: pytest.CaptureFixture) -> None:
    run([])
    overview = capsys.readouterr().out
    for name in ("train", "evaluate", "export", "bench", "list"):
        assert f"  {name} " in overview
        with pytest.raises(SystemExit) as stop:
            run([name, "--help"])
        assert stop.value.code == 0
        assert "default" in capsys.readouterr().out or name == "list"
    run(["--version"])
    assert capsys.readouterr().out.startswith("zoo ")


def test_list(capsys: pytest.CaptureFixture) -> None:
    run(["list"])
    everything = capsys.readouterr().out
    for word in ("robust_lowrank", "cifar10", *recipe_names()):
        assert word in everything
    run(["list", "--archs", "resnet1?"])
    assert capsys.readouterr().out.split() == ["resnet18"]


@pytest.mark.parametrize("columns", ["70", "200"])
def test_a_list_shows_names_in_one_piece_and_every_word_on_them(
    columns: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    run(["list", "--recipes"])
    words = " ".join(capsys.readouterr().out.split())
    for name in recipe_names():
        assert f"{name} {describe_recipe(name)}" in words
        assert describe_recipe(name).endswith(".")


def test_starting_up_needs_neither_torch_nor_lightning() -> None:
    code = "import sys; from zoo.cli import run; run([]); sys.exit(any(m in sys.modules for m in ('torch', 'timm')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_importing_the_exporter_needs_no_lightning() -> None:
    code = "import sys, zoo.export.exporter, zoo.bench.benchmark, zoo.runs.run; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_its_command_figures_and_time_and_parses(name: str) -> None:
    from zoo.cli._parser import Parser
    from zoo.cli._request import Request
    from zoo.cli.train import add_arguments

    path = FOLDER / f"{name}.yaml"
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"zoo train --config {name}" in " ".join(head)
    assert "run time" in " ".join(head).lower()
    request = Request.read(["--config", str(path)])
    parser = Parser(prog="zoo train")
    add_arguments(parser, request.names)
    options = parser.parse_args(request.words())
    assert options.arch == yaml.safe_load(path.read_text())["arch"]


def test_flags_override_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("arch: test_resnet\nmethod: {name: robust_lowrank, tau: 0.7}\nepochs: 1\nn: 30\nseed: 4\n")
    out = tmp_path / "run"
    run(
        [
            "train",
            "--config",
            str(config),
            "--seed",
            "5",
            "--out",
            str(out),
            "--trainer.limit_train_batches",
            "2",
        ]
    )
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert (saved["arch"], saved["seed"], saved["method"]["tau"]) == ("test_resnet", 5, 0.7)
    assert saved["trainer"] == {"limit_train_batches": 2}


@pytest.mark.parametrize("flag", ["--config {}", "--config={}"])
def test_flags_override_the_configuration_wherever_they_stand(flag: str, tmp_path: Path) -> None:
    """Another method takes the place of the configuration's, whose options it does not have."""
    config, out = tmp_path / "mine.yaml", tmp_path / "run"
    config.write_text(
        "arch: test_resnet\nmethod: {name: robust_lowrank, tau: 0.7}\nadversary: {name: mart, beta: 3.0}\n"
        "epochs: 3\nn: 30\nsteps: 1\n"
    )
    before = ["--epochs", "1", "--method", "lowrank", "--adversary", "pgd"]
    run(["train", *before, *flag.format(config).split(), "--trainer.limit_train_batches=2", "--out", str(out)])
    saved = yaml.safe_load((out / "config.yaml").read_text())
    names = [saved[part]["name"] for part in ("method", "adversary")]
    assert (saved["epochs"], names) == (1, ["lowrank", "pgd"])


@pytest.mark.parametrize(("eps", "told"), [("8", "8/255"), ("-0.1", "a radius is 0 or more")])
def test_a_radius_in_a_configuration_is_a_number_too(eps: str, told: str, tmp_path: Path) -> None:
    config, out = tmp_path / "mine.yaml", tmp_path / "run"
    config.write_text(f"arch: test_resnet\nadversary: fgsm_rs\neps: {eps}\n")
    with pytest.raises(UserError, match=told):
        run(["train", "--config", str(config), "--out", str(out)])
    config.write_text("arch: test_resnet\nadversary: fgsm_rs\neps: 0.03\nepochs: 1\nn: 30\n")
    run(["train", "--config", str(config), "--trainer.limit_train_batches", "2", "--out", str(out)])
    assert yaml.safe_load((out / "config.yaml").read_text())["eps"] == "0.03"


@pytest.mark.parametrize("flag", ["--config {}", "--config={}"])
def test_a_configuration_names_plugins_as_flags_do(flag: str, tmp_path: Path) -> None:
    config, out = tmp_path / "mine.yaml", tmp_path / "run"
    config.write_text("arch: test_resnet\nmethod: lowrank\nregularize: weight_robust\nepochs: 1\nn: 30\n")
    run(["train", *flag.format(config).split(), "--trainer.limit_train_batches", "2", "--out", str(out)])
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert [saved[part]["name"] for part in ("method", "regularize")] == ["lowrank", "weight_robust"]


def test_zoo_runs_outside_its_source_tree(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-m", "zoo", "list"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert "robust_lowrank" in done.stdout


def test_later_commands_find_the_data_where_the_training_did(tmp_path: Path, capsys, monkeypatch) -> None:
    root, folder = image_tree(tmp_path / "images"), str(tmp_path / "run")
    size = ["--image-size", "16", "--batch-size", "2"]
    monkeypatch.chdir(tmp_path)
    run(["train", "--arch", "test_resnet", "--data", "imagefolder", "--data-dir", "images", *size, "--epochs", "1",
         "--n", "6", "--device", "cpu", "--out", folder])  # fmt: skip
    monkeypatch.chdir("/")
    run(["evaluate", folder, "--attacks", "fgsm", "--norms", "Linf", "--n", "6"])
    run(["export", folder, "--target", "generic"])
    run(["bench", folder, "--n", "6", "--rounds", "1", "--seconds", "0"])
    assert "clean" in capsys.readouterr().out.split("ONNX Runtime")[-1]
    elsewhere = tmp_path / "moved"
    root.rename(elsewhere)
    assert "correct --data-dir" in error_of("evaluate", folder, "--n", "6")
    run(["evaluate", folder, "--attacks", "fgsm", "--norms", "Linf", "--n", "6", "--data-dir", str(elsewhere)])
