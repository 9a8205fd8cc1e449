"""Several methods under one recipe: trained once, told apart, summed up rightly."""

import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from zoo.cli import run as zoo
from zoo.comparison import Comparison, Contender, Figures, print_comparison, summarise
from zoo.comparison import plan as plan_module
from zoo.errors import UserError
from zoo.runs.card import Card
from zoo.runs.records import Evaluation
from zoo.runs.run import Run

SHARED = ["--", "--arch", "test_resnet", "--epochs", "1", "--n", "60", "--device", "cpu", "--compression", "0.5"]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run the commands in this process, and list them."""
    commands: list[list[str]] = []

    def call(arguments: list[str], what: str) -> None:
        commands.append(arguments)
        zoo(arguments)

    monkeypatch.setattr(plan_module, "run_command", call)
    return commands


def test_each_contender_is_trained_once_with_each_seed(in_process, tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "c"), "--seeds"]
    zoo(["compare", "lowrank", *out, "0", *SHARED])
    assert len(in_process) == 1
    out += ["0,1"]
    zoo(["compare", "lowrank", *out, *SHARED])
    assert [command[0] for command in in_process] == ["train", "train"]
    zoo(["compare", "lowrank", "robust_lowrank,tau=0.5", *out, *SHARED])
    assert len(in_process) == 4
    printed = capsys.readouterr().out
    assert "robust_lowrank,tau=0.5" in printed
    figures = {x["name"]: x["values"] for x in json.loads((tmp_path / "c/figures.json").read_text())}
    assert all(len(values) == 2 for row, values in figures["lowrank"].items())
    assert max(figures["robust_lowrank,tau=0.5"]["largest condition number"]) <= 1.5 + 1e-4
    card = json.loads((tmp_path / "c/robust_lowrank-tau=0.5-seed1/card.json").read_text())
    assert card["method_options"]["tau"] == 0.5
    assert card["provenance"]["seed"] == 1
    assert (tmp_path / "c/comparison.png").stat().st_size > 10_000
    with pytest.raises(UserError, match="other options"):
        zoo(["compare", "lowrank", *out, *SHARED, "--lr", "0.01"])


def test_contenders_are_trained_by_their_methods_whatever_a_shared_configuration_names(
    in_process, tmp_path: Path
) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text("arch: test_resnet\nmethod: {name: robust_lowrank, tau: 0.7}\nepochs: 1\nn: 60\n")
    shared = ["--", "--config", str(config), "--device", "cpu", "--compression", "0.5"]
    zoo(["compare", "lowrank", "robust_lowrank", "--out", str(tmp_path / "c"), "--seeds", "0", *shared])
    cards = {path.parent.name: Card.load(path) for path in (tmp_path / "c").glob("*/card.json")}
    assert {name: card.method for name, card in cards.items()} == {
        f"{method}-seed0": method for method in ("lowrank", "robust_lowrank")
    }
    assert cards["robust_lowrank-seed0"].method_options["tau"] == 0.7


@pytest.mark.slow
def test_latencies_are_measured_in_turns(in_process, tmp_path: Path, capsys) -> None:
    zoo(["compare", "lowrank", "dense", "--out", str(tmp_path / "c"), "--latency", "true", *SHARED[:-2]])
    assert "ms, batch 1" in capsys.readouterr().out
    figures = {x["name"]: x["values"] for x in json.loads((tmp_path / "c/figures.json").read_text())}
    assert all(figures[name]["ms, batch 1"][0] > 0 for name in ("lowrank", "dense"))


def test_a_training_that_died_is_resumed(in_process, dying_at, tmp_path: Path) -> None:
    command = ["compare", "robust_lowrank", "--out", str(tmp_path / "c"), *SHARED]
    with dying_at(5):
        zoo(command)
    zoo(command)
    assert [words[:2] for words in in_process] == [["train", "--method"], ["train", "--resume"]]


def test_finished_runs_are_taken_as_they_are_and_evaluated_further(train_tiny, in_process, tmp_path: Path) -> None:
    folder = train_tiny(name="mine").folder
    zoo(["compare", str(folder), "--attacks", "fgsm", "--n", "60", "--out", str(tmp_path / "c")])
    assert [words[0] for words in in_process] == ["evaluate"]
    zoo(["export", str(folder), "--target", "generic"])
    graph = onnx.load(folder / "model.onnx")
    next(x for x in graph.metadata_props if x.key == "precision").value = "int8"  # as --precision int8 leaves it
    onnx.save(graph, folder / "model.onnx")
    with pytest.raises(UserError, match=r"is in int8.*zoo export"):
        zoo(["compare", str(folder), "--latency", "true", "--out", str(tmp_path / "d")])


@pytest.fixture
def twin(train_tiny) -> Callable[..., list[str]]:
    """Return the folders of two finished runs; the card of the second says something else."""

    def runs(known: dict, **changes) -> list[str]:
        first = train_tiny(name="first")
        first.save_card(first.card.model_copy(update=known))
        second = Path(shutil.copytree(first.folder, first.folder.with_name("second")))
        Run(second).save_card(first.card.model_copy(update=known | changes))
        return [str(first.folder), str(second)]

    return runs


@pytest.mark.parametrize(
    ("known", "changes", "said"),
    [
        ({}, {"data": "cifar10"}, "digits, cifar10"),
        ({}, {"class_names": tuple("abc")}, "digits of 10 classes, of 3"),
        ({}, {"class_names": tuple("012345678x")}, "digits with a class 9, with x in its place"),
        ({"data_sha256": "a" * 64}, {"data_sha256": "b" * 64}, "SHA-256 aaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbb"),
    ],
)
def test_runs_of_different_data_are_not_compared(twin, tmp_path: Path, known: dict, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=f"first and .*second use different data .*{said}"):
        zoo(["compare", *twin(known, **changes), "--out", str(tmp_path / "c")])
    assert not (tmp_path / "c").exists()


def test_a_hash_that_only_one_run_knows_is_no_difference(twin, tmp_path: Path) -> None:
    zoo(["compare", *twin({}, data_sha256="a" * 64), "--out", str(tmp_path / "c")])


def test_a_training_on_other_data_than_a_finished_run_is_not_compared_with_it(twin, in_process, tmp_path: Path) -> None:
    _, other = twin({}, data="cifar10")
    with pytest.raises(UserError, match=r"different data \(cifar10, digits\)"):
        zoo(["compare", other, "dense", "lowrank", "--out", str(tmp_path / "c"), *SHARED[:-2]])
    assert len(in_process) == 1


def test_every_architecture_is_named_once_over_the_picture(twin, tmp_path: Path, monkeypatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr("zoo.comparison.draw", lambda figures, path, title: titles.append(title))
    first, second = twin({}, arch="resnet18")
    zoo(["compare", first, second, "--out", str(tmp_path / "c")])
    zoo(["compare", first, "--out", str(tmp_path / "c")])
    named = [title.rpartition(", ")[0] for title in titles]
    assert named == ["test_resnet, resnet18, digits", "test_resnet, digits"]


def test_the_condition_number_of_a_singular_layer_is_strict_json(train_tiny, tmp_path: Path) -> None:
    run = train_tiny(name="mine")
    run.save_card(run.card.model_copy(update={"max_condition_number": math.inf}))
    zoo(["compare", str(run.folder), "--out", str(tmp_path / "c")])
    (figures,) = json.loads((tmp_path / "c/figures.json").read_text(), parse_constant=pytest.fail)
    assert figures["values"]["largest condition number"] == ["Infinity"]


def test_two_contenders_never_share_a_folder(tmp_path: Path) -> None:
    """Or the second would be taken for trained, with the figures of the first."""
    for name in ("a b.yaml", "a-b.yaml"):
        (tmp_path / name).write_text("arch: test_resnet\n")
    words = tuple(str(tmp_path / name) for name in ("a b.yaml", "a-b.yaml"))
    both = Comparison(tuple(map(Contender.parse, words)), (0,), (), tmp_path / "c")
    with pytest.raises(UserError, match="would share the folder"):
        both.prepare()
    first = Comparison(both.contenders[:1], (0,), (), tmp_path / "c")
    first.prepare()
    first.prepare()
    with pytest.raises(UserError, match="would share the folder"):
        Comparison(both.contenders[1:], (0,), (), tmp_path / "c").prepare()
    (tmp_path / "c/comparison.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        first.prepare()


def test_a_contender_written_otherwise_has_the_runs_that_are_there(tmp_path: Path) -> None:
    plans = []
    for word in ("robust_lowrank,tau=0.5,start=3", "robust_lowrank(tau=0.5, start=3)"):
        comparison = Comparison((Contender.parse(word),), (0,), (), tmp_path)
        comparison.prepare()
        plans.append((comparison.folders(comparison.contenders[0]), (tmp_path / "comparison.json").read_text()))
    assert plans[0] == plans[1]


def test_means_and_deviations() -> None:
    figures = Figures("x", {"clean": [0.5, 0.7, 0.6], "one": [1.0]})
    assert figures.mean("clean") == pytest.approx(0.6)
    assert figures.deviation("clean") == pytest.approx(statistics.stdev([0.5, 0.7, 0.6])) == pytest.approx(0.1)
    assert figures.deviation("one") is None


def test_no_figure_loses_a_digit_where_many_are_compared(capsys) -> None:
    counts = range(123_456_789, 123_456_797)
    contenders = [Figures(f"robust_lowrank,tau={count % 10}", {"MACs": [count]}) for count in counts]
    print_comparison(contenders, Console(width=80))
    first, second = (line.split() for line in capsys.readouterr().out.splitlines()[-3:-1])
    assert first[0] == "MACs"
    shown = ["".join(parts) for parts in zip(first[1:], second, strict=True)]
    assert shown == [f"{count:,}" for count in counts]


def test_rows_are_those_that_every_seed_has(train_tiny) -> None:
    fewer = train_tiny().card
    attacked = Evaluation(attack="pgd", norm="L2", eps=0.1, accuracy=0.5, n=60)
    rows = summarise("x", [fewer.with_evaluations([attacked]), fewer]).values
    assert rows["clean"] == [fewer.evaluations[0].accuracy] * 2
    assert not any(row.startswith("pgd") for row in rows)


def test_curves_are_of_the_pgd_with_the_most_steps(train_tiny) -> None:
    def card(accuracies: dict[tuple[int, float], float]) -> Card:
        clean = Evaluation(attack="clean", norm=None, eps=0.0, accuracy=0.9, n=10)
        attacks = [
            Evaluation(attack="pgd", norm="Linf", eps=eps, accuracy=x, n=10, options={"steps": steps})
            for (steps, eps), x in accuracies.items()
        ]
        return finished.model_copy(update={"evaluations": (clean, *attacks)})

    finished = train_tiny().card
    first = card({(10, 0.2): 0.6, (20, 0.2): 0.5, (10, 0.1): 0.7})
    second = card({(20, 0.2): 0.3, (10, 0.1): 0.9, (10, 0.4): 0.1})
    curve = summarise("x", [first, second]).curves["Linf"]
    assert curve == [(0.0, 0.9), (0.1, pytest.approx(0.8)), (0.2, pytest.approx(0.4))]


def test_a_curve_of_each_norm_is_of_one_attack_that_every_seed_has(train_tiny) -> None:
    def card(*attacks: tuple[str, str, float, float]) -> Card:
        clean = Evaluation(attack="clean", norm=None, eps=0.0, accuracy=0.9, n=10)
        found = [Evaluation(attack=a, norm=norm, eps=eps, accuracy=x, n=10) for a, norm, eps, x in attacks]
        return finished.model_copy(update={"evaluations": (clean, *found)})

    finished = train_tiny().card
    first = card(("sigma_zero", "L0", 5, 0.4), ("apgd", "L1", 2, 0.3), ("square", "L1", 2, 0.8), ("fgsm", "L2", 1, 0.5))
    second = card(("sigma_zero", "L0", 5, 0.2), ("apgd", "L1", 2, 0.1), ("pgd", "L2", 1, 0.5))
    figures = summarise("x", [first, second])
    assert figures.attacks == {"L1": "apgd", "L0": "sigma_zero"}
    assert figures.curves == {
        "L1": [(0.0, 0.9), (2, pytest.approx(0.2))],
        "L0": [(0.0, 0.9), (5, pytest.approx(0.3))],
    }


def test_compressions_and_norms_side_by_side(in_process, tmp_path: Path, capsys) -> None:
    words = ["compare", "lowrank@0.5", "lowrank@0.8", "--out", str(tmp_path / "c"), "--page", "true"]
    eps = ["--eps", "Linf=0.05,L0=2,5", "--n", "10"]
    zoo([*words, *eps, *SHARED[:-2]])
    assert [command[0] for command in in_process] == ["train"] * 2 + ["evaluate"] * 2
    figures = {x["name"]: x for x in json.loads((tmp_path / "c/figures.json").read_text())}
    half, fifth = (figures[name]["values"]["parameters"][0] for name in ("lowrank@0.5", "lowrank@0.8"))
    assert half < 0.5 * 373_370
    assert fifth < 0.2 * 373_370
    for own in figures.values():
        assert own["attacks"] == {"Linf": "pgd", "L0": "sigma_zero"}
        assert [point[0] for point in own["curves"]["L0"]] == [0, 2, 5]
    assert (tmp_path / "c/report.html").is_file()
    with pytest.raises(UserError, match=r"lowrank@0\.5 has a compression of its own"):
        zoo(["compare", "lowrank@0.5", "--out", str(tmp_path / "d"), *SHARED])
    with pytest.raises(UserError, match="is trained already"):
        Contender.parse(f"{tmp_path / 'c/lowrank-0.5-seed0'}@0.5")


def test_a_failing_training_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exit code 2"):
        zoo(["compare", "dense", "--out", str(tmp_path / "c"), "--", "--arch", "no_such_net"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lowrnk", "did you mean lowrank"),
        ("lowrank,init", "key=value"),
        ("lowrank,=1", "key=value"),
        ("robust_lowrank(tau=1", "is missing"),
        ("robust_lowrank(tua=1)", "did you mean tau"),
        ("dense(tau=1)", "dense has no options"),
        ("lowrnk@0.5", "did you mean lowrank"),
        ("lowrank@", "'' is not a share of parameters"),
        ("lowrank@90", "'90' is not a share of parameters"),
        ("lowrank@much", "'much' is not a share of parameters"),
    ],
)
def test_contenders_that_are_none(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Contender.parse(word)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attacks", "nosuch"], "unknown attack 'nosuch'"),
        (["--probes", "nosuch"], "unknown probe 'nosuch'"),
        (["--attacks", "fgsm", "--n", "0"], "--n must be at least 1, not 0"),
        (["--seeds", "0,-1"], r"seed must be in \[0, 2\^32\), got -1"),
    ],
)
def test_what_the_evaluations_would_refuse_is_refused_before_any_training(
    in_process, options: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        zoo(["compare", "lowrank", "--out", str(tmp_path / "out"), *options])
    assert not in_process
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--seed", "--out=x", "--method", "--method.name"])
def test_flags_that_a_comparison_sets_itself_are_refused(flag: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave it out"):
        zoo(["compare", "dense", "--out", str(tmp_path / "c"), "--", flag, "1"])
    with pytest.raises(UserError, match="whole numbers"):
        zoo(["compare", "dense", "--seeds", "a", "--out", str(tmp_path / "c")])
