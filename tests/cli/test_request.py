"""One plugin with options, however it is written: flags, one text, a configuration of today or of yesterday."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import zoo
from zoo.cli._parser import Parser
from zoo.cli._request import Request, read_configuration
from zoo.cli.train import read_recipe
from zoo.errors import UserError
from zoo.methods import METHODS
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.plugins import renamed_options


def recipe(*argv: str) -> dict[str, Any]:
    return read_recipe(Parser(prog="zoo train"), list(argv))[1]


@pytest.fixture
def config(tmp_path: Path):
    def write(text: str) -> list[str]:
        (tmp_path / "mine.yaml").write_text(text)
        return ["--config", str(tmp_path / "mine.yaml")]

    return write


CARDS = sorted(Path(zoo.__file__).parent.glob("hub/bundled/*/card.json"))
WANTED = RobustLowrank(tau=0.2, convolution="tucker", rank_budget="adaptive", sensitivity_range=0.3)
OPTIONS = "tau=0.2, convolution=tucker, rank_budget=adaptive, "
SPELLINGS = [
    ["--method", f"robust_lowrank({OPTIONS}sensitivity_range=0.3)"],
    [f"--method=robust_lowrank({OPTIONS}sensitivity_range=0.3)"],
    [f"--method.name=robust_lowrank({OPTIONS}spare=0.3)"],
    ["--method", "robust_lowrank,tau=0.2,convolution=tucker,rank_budget=adaptive,sensitivity_range=0.3"],
    ["--method", "robust_lowrank(tau=7)", "--method", f"robust_lowrank({OPTIONS}spare=0.3)"],
    ["--method", "lowrank(init=random)", "--method", f"robust_lowrank({OPTIONS}spare=0.3)"],
    ["--method", f"robust_lowrank({OPTIONS}sensitivity_range=0.1)", "--method.spare", "0.3"],
    ["--method.tau", "0.2", "--method", "robust_lowrank", "--method.convolution=tucker", "--method.spare=0.3",
     "--method.rank_budget", "adaptive"],
]  # fmt: skip


@pytest.mark.parametrize("argv", SPELLINGS, ids=range(len(SPELLINGS)))
def test_flags_mean_the_same_in_every_spelling(argv: list[str]) -> None:
    assert recipe(*argv)["method"] == WANTED


@pytest.mark.parametrize(
    "text",
    [
        f"method: robust_lowrank({OPTIONS}sensitivity_range=0.3)",
        f"method: '  robust_lowrank( {OPTIONS} spare = 0.3 )'",
        f"method: {{name: robust_lowrank, {OPTIONS.replace('=', ': ')}sensitivity_range: 0.3}}",
        f"method: {{name: robust_lowrank, {OPTIONS.replace('=', ': ')}spare: 0.3}}",
        "method: {name: 'robust_lowrank(tau=0.2, spare=0.3)', convolution: tucker, rank_budget: adaptive}",
        "common: &c {tau: 0.2, convolution: tucker}\nmethod: {<<: *c, rank_budget: adaptive, spare: 0.3}",
    ],
)
def test_configurations_mean_the_same_in_every_spelling(text: str, config) -> None:
    assert recipe(*config(text))["method"] == WANTED


def test_every_kind_of_plugin_takes_options_with_its_name(config) -> None:
    flags = ["--adversary", "trades(beta=2)", "--regularize", "weight_robust(images=8)", "--finish", "rift(epochs=3)"]
    by_flags = recipe(*flags)
    by_file = recipe(*config("adversary: trades(beta=2)\nregularize: weight_robust(images=8)\nfinish: rift(epochs=3)"))
    assert by_flags == by_file
    assert (by_flags["adversary"].beta, by_flags["regularize"].images, by_flags["finish"].epochs) == (2.0, 8, 3)


def test_a_flag_goes_over_the_configuration_option_by_option(config) -> None:
    argv = config("method: robust_lowrank(tau=0.7, start=3)")
    assert recipe(*argv, "--method", "robust_lowrank(tau=0.2)")["method"] == RobustLowrank(tau=0.2, start=3.0)
    assert recipe("--method", "lowrank", *argv)["method"] == METHODS.get("lowrank")()


def test_later_configurations_go_over_earlier_ones(tmp_path: Path) -> None:
    texts = ["lr: 0.3\nmethod: robust_lowrank(tau=0.7)\ntrainer: {limit_train_batches: 2}",
             "epochs: 3\nmethod: {start: 4}\ntrainer: {limit_val_batches: 1}"]  # fmt: skip
    argv = []
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.yaml").write_text(text)
        argv += ["--config", str(tmp_path / f"{i}.yaml")]
    settings = Request.read(argv).settings
    assert settings == {
        "lr": 0.3, "epochs": 3, "method": {"name": "robust_lowrank", "tau": "0.7", "start": 4},
        "trainer": {"limit_train_batches": 2, "limit_val_batches": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--method", "robust_lowrank(tua=1)"], r"'--method.tua': did you mean --method.tau"),
        (["--method", "robust_lowrank(tau=x)"], "^--method.tau: expected float, got x$"),
        (["--method", "robust_lowrank(init=dense)"], "--method.init 'dense': choose from"),
        (["--method", "robust_lowrank(tau=1"], r"^--method: .*the \) is missing"),
        (["--method", "robust_lowrank(tau=1, tau=2)"], "gives tau twice"),
        (["--method", "robust_lowrank(tau=[1, 2])"], "^--method.tau: expected float"),
        (["--method", "nowhere(tau=1)"], "unknown method 'nowhere'"),
        (["--adversary", "pgd(steps=3)"], "steps"),
        (["--method"], "^--method needs a name"),
    ],
)
def test_a_mistaken_flag_is_answered_in_one_line(argv: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        recipe(*argv)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("momentum: null", "^momentum is null: give it a value"),
        ("method: {name: robust_lowrank, tau: null}", r"^method\.tau is null"),
        ("method: null", "method has no value: name one of `zoo list --methods`"),
        ("adversary: {name: null}", "adversary has no value"),
        ("method: {name: {name: dense}}", "which is not a name"),
        ("method: {dense: {tau: 1}}", "option of robust_lowrank 'dense'"),
        ("method: [dense]", "which is not a name"),
        ("method: dense(tau=1)", "dense has no options: leave tau out"),
        ("method: robust_lowrank(tau=1", r"mine.yaml: method: .*the \) is missing"),
        ("method: {name: robust_lowrank(tau=1), tau: 2}", "gives tau twice"),
        ("method: {spare: 0.3, sensitivity_range: 0.3}", "spare is now sensitivity_range, and both are given"),
        ("config: other.yaml", "give --config on the command line"),
        ("resume: run", "give --resume on the command line"),
        ("trainer: 3", "trainer is 3; write options of Lightning's Trainer under it"),
        ("trainer: {max_stepz: 3}", "max_stepz"),
        ("batch-size: 3", "did you mean batch_size"),
        ("3: 4", "unknown option '3': see `zoo train --help`"),
        ("weights: {a: 1}", "^--weights: expected Path, got"),
        ("common: {lr: 1}", "unknown option 'common'"),
        ("lr: [", "cannot be read"),
        ("lr: 2024-13-45", "cannot be read"),
        ("lr: \x00", "cannot be read"),
        ("- lr", "must be a mapping"),
        ("lr: &a [*a]", "lr"),
        ("lr: {a: 1}", "lr"),
    ],
)
def test_a_mistaken_configuration_is_answered_in_one_line(text: str, told: str, config) -> None:
    with pytest.raises(UserError, match=told) as caught:
        recipe(*config(text))
    assert "\n" not in str(caught.value)


def test_sections_without_anything_and_keys_for_anchors_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("common: &c {lr: 0.2, epochs: 3}\n<<: *c\nepochs: 4\ntrainer:\n")
    assert read_configuration(path) == {"lr": 0.2, "epochs": 4}
    path.write_text("# nothing yet\n")
    assert read_configuration(path) == {}


def test_what_was_saved_under_an_earlier_name_loads(tmp_path: Path) -> None:
    saved = METHODS.saved("robust_lowrank", {"tau": 1.0, "spare": 0.3}, tmp_path / "card.json")
    assert saved == RobustLowrank(tau=1.0, sensitivity_range=0.3)
    with pytest.raises(UserError, match=r"card.json: spare is now sensitivity_range, and both are given"):
        METHODS.saved("mrs_prune", {"sensitivity_range": 0.2, "spare": 0.3}, tmp_path / "card.json")
    with pytest.raises(UserError, match="pip install --upgrade robust-zoo"):
        METHODS.saved("robust_lowrank", {"tomorrow": 1}, tmp_path / "card.json")


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_every_published_card_names_a_method_that_there_is(path: Path) -> None:
    card = json.loads(path.read_text())
    method = METHODS.saved(card["method"], card["method_options"], path)
    for key, value in card["method_options"].items():
        new = renamed_options(type(method)).get(key, key)
        assert getattr(method, new) == value


@pytest.mark.parametrize("name", METHODS.names())
def test_renamed_options_lead_to_options_that_there_are(name: str) -> None:
    options = METHODS.get(name).__dataclass_fields__.keys()
    new_names = renamed_options(METHODS.get(name))
    assert set(new_names.values()) <= set(options)
    assert not new_names.keys() & options


def test_a_training_begun_under_an_earlier_name_goes_on(train_tiny, dying_at, tmp_path: Path) -> None:
    """Its configuration and the recipe in its checkpoint have the earlier name."""
    import torch

    from zoo.cli import run

    folder = tmp_path / "run"
    with dying_at(13):
        run(["train", "--arch", "test_resnet", "--epochs", "2", "--n", "30", "--method", "robust_lowrank(spare=0.3)",
             "--out", str(folder)])  # fmt: skip
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["method"]["spare"] = settings["method"].pop("sensitivity_range")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    checkpoint = torch.load(folder / "last.ckpt", weights_only=False)
    assert checkpoint["recipe"].pop("method.sensitivity_range") == 0.3
    torch.save(checkpoint | {"recipe": checkpoint["recipe"] | {"method.spare": 0.3}}, folder / "last.ckpt")
    run(["train", "--resume", str(folder)])
    assert (folder / "card.json").is_file()
