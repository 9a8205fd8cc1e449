"""Names and indices: what one is, what is refused, what is chosen from it."""

import io
import json
import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hub_server import SUMMARY, make_hub
from hypothesis import example, given, settings
from hypothesis import strategies as st
from make_hub import autoattack, fgsm, make_card, pgd
from pydantic import ValidationError
from rich.console import Console

from zoo.errors import UserError
from zoo.hub.download import read_index
from zoo.hub.index import Entry, Index, Robust, Summary
from zoo.hub.names import check_name, default_tag, is_name, matching
from zoo.hub.search import open_hub, published
from zoo.hub.selection import Selection, parse_count
from zoo.hub.table import models_table
from zoo.runs.card import SCHEMA, Card
from zoo.runs.records import Evaluation, Threat

SHA = "0" * 64
FILES = {name: {"sha256": SHA, "bytes": 1} for name in ("card.json", "model.safetensors")}


def index_of(name: str, files: dict | None = None) -> bytes:
    entry = {"files": FILES if files is None else files, "summary": SUMMARY.model_dump()}
    return json.dumps({"schema_version": 1, "models": {name: entry}}).encode()


ROUGH = st.text(st.sampled_from("aZ0_-./\\~:*\0\n %C") | st.characters(), max_size=30)


@settings(max_examples=60)
@given(ROUGH | st.from_regex(r"[a-z]+\.[a-z./]+", fullmatch=True))
@example("../../etc")
@example("a.b/../../c")
@example("/etc/passwd.x")
@example("..")
@example("a.b\n")
@example("C:\\a.b")
def test_a_name_that_an_index_gets_past_us_is_one_folder_in_the_cache(name: str) -> None:
    try:
        index = Index.parse(index_of(name), "index")
    except UserError:
        assert not is_name(name)
        return
    assert list(index.models) == [name]
    assert is_name(name)
    for kind in (PurePosixPath, PureWindowsPath):
        assert kind(name).parts == (name,)
    assert os.path.normpath(f"/cache/models/{name}") == f"/cache/models/{name}"


@given(ROUGH)
@example("../card.json")
@example("weights.pkl")
@example("model.bin")
def test_an_index_can_name_no_other_files_than_those_of_a_model(file: str) -> None:
    files = FILES | {file: {"sha256": SHA, "bytes": 1}}
    if file in ("card.json", "model.safetensors", "model.onnx", "README.md"):
        Index.parse(index_of("a.b", files), "index")
    else:
        with pytest.raises(UserError, match="is not a hub index"):
            Index.parse(index_of("a.b", files), "index")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a hub index"),
        (b"{", "is not a hub index"),
        (b"[" * 100_000, "is not a hub index"),
        (b"<!doctype html>", "it is a web page"),
        (b"\xff\xfe", "is not a hub index"),
        (b'{"schema_version": 99, "models": 3}', "has schema 99, this zoo knows 1: pip install --upgrade"),
        (b'{"schema_version": 1, "more": {}}', "more"),
        (index_of("a.b", {"card.json": FILES["card.json"]}), "model.safetensors not among its files"),
        (index_of("a.b", FILES | {"card.json": {"sha256": "x", "bytes": 1}}), "sha256"),
        (index_of("a.b", FILES | {"card.json": {"sha256": SHA, "bytes": -1}}), "bytes"),
        (index_of("a.b", FILES | {"card.json": {"sha256": SHA, "bytes": 2**60}}), "bytes"),
    ],
)
def test_an_index_that_is_none_is_refused_in_one_line(content: bytes, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        Index.parse(content, "https://hub/index.json")
    assert "https://hub/index.json" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_published_stays() -> None:
    entry = Entry.model_validate({"files": FILES, "summary": SUMMARY})
    index = Index().with_model("b.x", entry, "hub").with_model("a.x", entry, "hub")
    assert Index.parse(index.to_json(), "index") == index
    assert list(index.models) == ["a.x", "b.x"]
    with pytest.raises(UserError, match=r"hub has a\.x already"):
        index.with_model("a.x", entry, "hub")


def test_names_and_patterns() -> None:
    names = ["resnet101.a", "resnet18.b", "resnet18.a", "vgg16_bn.a"]
    assert matching("*", names) == ["resnet18.a", "resnet18.b", "resnet101.a", "vgg16_bn.a"]
    assert matching("resnet18", names) == ["resnet18.a", "resnet18.b"]
    assert matching("resnet*.a", names) == ["resnet18.a", "resnet101.a"]
    assert matching("resnet", names) == []
    assert default_tag("robust_lowrank", 0.7512, "cifar10", robust=True) == "robust_lowrank75_at_c10"
    assert default_tag("dense", 0.0, "digits", robust=False) == "dense_digits"
    with pytest.raises(UserError, match=r"names are ARCH\.TAG"):
        check_name("resnet18")


def entry(**figures: object) -> Entry:
    return Entry.model_validate({"files": FILES, "summary": SUMMARY.model_copy(update=figures)})


def test_models_are_chosen_and_ordered_by_their_figures() -> None:
    at = [Robust(norm="Linf", eps=8 / 255, attack="autoattack", accuracy=a, n=100) for a in (0.5, 0.3)]
    threat = Threat(norm="Linf", eps=0.03137)
    models = {
        "a.x": entry(params=3_000_000, robust=(at[0],), threat=threat, clean=0.8, latency_ms=2.0),
        "b.x": entry(params=1_000_000, robust=(at[1],), threat=threat, clean=0.9, latency_ms=1.0),
        "c.x": entry(params=500_000, data="cifar10", clean=0.7),
    }
    assert list(Selection(min_robust=0.4).of(models)) == []  # 0.03137 is not 8/255
    near = Threat(norm="Linf", eps=8 / 255)
    assert list(Selection(min_robust=0.4, threat=near).of(models)) == ["a.x"]
    assert list(Selection(max_params=2_000_000).of(models)) == ["b.x", "c.x"]
    assert list(Selection(data="cifar10").of(models)) == ["c.x"]
    assert list(Selection(sort="clean").of(models)) == ["b.x", "a.x", "c.x"]
    assert list(Selection(sort="latency").of(models)) == ["b.x", "a.x", "c.x"]
    assert list(Selection(sort="robust", threat=near).of(models)) == ["a.x", "b.x", "c.x"]
    models["d.x"] = entry(robust=(at[0],), threat=threat, gradient_masking=True)
    assert list(Selection(sort="robust", threat=near).of(models))[:2] == ["a.x", "b.x"]
    assert list(Selection(min_robust=0.4, threat=near).of(models)) == ["a.x"]
    with pytest.raises(UserError, match="choose from name"):
        Selection(sort="size")  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "count"), [("2M", 2_000_000), ("0.5m", 500_000), ("10k", 10_000), ("123", 123)])
def test_numbers_of_parameters(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "2Q", "many", "infM"])
def test_no_numbers_of_parameters(text: str) -> None:
    with pytest.raises(UserError, match="write 2M"):
        parse_count(text)


def test_a_summary_has_the_lowest_accuracy_of_each_radius(tmp_path: Path) -> None:
    from make_run import make_run

    def under(attack: str, eps: float, accuracy: float) -> Evaluation:
        return Evaluation(attack=attack, norm="Linf", eps=eps, accuracy=accuracy, n=10)

    card = make_run(tmp_path / "run").card.with_evaluations(
        [under("fgsm", 0.1, 0.6), under("pgd", 0.1, 0.4), under("pgd", 0.2, 0.1)]
    )
    found = Summary.of(card)
    assert [(r.eps, r.attack, r.accuracy) for r in found.robust] == [(0.1, "pgd", 0.4), (0.2, "pgd", 0.1)]
    assert found.threat == Threat(norm="Linf", eps=0.2)
    trained = card.model_copy(update={"training": {"adversary": "pgd", "adversary_options": {"eps": 0.1}}})
    assert Summary.of(trained).robust_at() == found.robust[0]
    with pytest.raises(ValidationError):
        card.weights.model_validate({"file": "../model.safetensors", "sha256": SHA, "bytes": 1})


def test_a_condition_of_zero_is_a_condition(capsys: pytest.CaptureFixture) -> None:
    from zoo.cli import run

    for flags in (["--min-robust", "0"], ["--min-robust", "0.0"]):
        run(["list", *flags])
        printed = capsys.readouterr().out
        assert "resnet18.robust_lowrank90_at_c10" in printed
        assert "mrs_prune  " not in printed  # the list of methods


def test_of_equal_accuracies_that_by_autoattack_counts_and_the_list_does_not_call_it_a_bound() -> None:
    threat = Threat(norm="Linf", eps=8 / 255)
    for evaluations in ([autoattack(threat, 0.35), pgd(threat, 0.35)], [pgd(threat, 0.35), autoattack(threat, 0.35)]):
        found = Summary.of(make_card("resnet18.tie", threat, evaluations)).robust_at(threat)
        assert found is not None
        assert (found.attack, found.accuracy) == ("autoattack", 0.35)
    rounded = fgsm(Threat(norm="Linf", eps=0.0313725), 0.55)
    for evaluations in ([rounded, autoattack(threat, 0.35)], [autoattack(threat, 0.35), rounded]):
        found = Summary.of(make_card("resnet18.rounded", threat, evaluations)).robust_at(threat)
        assert found is not None
        assert (found.attack, found.accuracy) == ("autoattack", 0.35)


@pytest.mark.parametrize(
    "figures",
    [
        {"params": 10**400}, {"params": -5}, {"clean": 99.0}, {"clean": float("nan")}, {"latency_ms": float("inf")},
        {"threat": {"norm": "Linf", "eps": 1e308}}, {"data": "cifar\u202e01"}, {"data": "\x1b[31m"},
    ],
)  # fmt: skip
def test_an_index_with_figures_that_make_no_sense_is_refused(figures: dict) -> None:
    entry = {"files": FILES, "summary": SUMMARY.model_dump() | figures}
    with pytest.raises(UserError, match=next(iter(figures))):
        Index.parse(json.dumps({"schema_version": 1, "models": {"a.b": entry}}).encode(), "index")


@pytest.mark.parametrize(
    ("address", "folder"),
    [("file:///a/b", "/a/b"), ("FILE:///a%20b", "/a b"), ("file://localhost/a", "/a"), ("file:///a#b?c", "/a#b?c")],
)
def test_a_file_address_is_a_folder_of_this_machine(address: str, folder: str) -> None:
    assert open_hub(address).local("x") == Path(folder) / "x"


@pytest.mark.parametrize("address", ["file://team/hub", "file://hub", "file://"])
def test_a_file_address_of_another_machine_is_not_taken_for_one_of_this(address: str) -> None:
    with pytest.raises(UserError, match="write file:///FOLDER"):
        open_hub(address)


@pytest.mark.parametrize("user", ["me:secret@", "secret@", "me:se@cret@"])
@pytest.mark.parametrize("address", ["nonsense://{}host/x", "http://{}ho st:99999/", "memory://{}team/hub"])
def test_a_password_is_in_no_message(address: str, user: str) -> None:
    words = ""
    try:
        hub = open_hub(address.format(user))
        words = hub.address
        read_index(hub)
    except UserError as error:
        words += str(error)
    assert "cret" not in words


def test_an_index_on_disk_lists_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from zoo.cli import run

    make_hub(tmp_path / "hub", {"card.json": 10, "model.safetensors": 20})
    run(["list", "test_resnet.x", "--hub", str(tmp_path / "hub"), "--json", "true"])
    (model,) = json.loads(capsys.readouterr().out)
    assert (model["name"], model["clean"], model["bytes"]["card.json"]) == ("test_resnet.x", 0.5, 10)
    run(["list", "test_resnet.x", "--hub", str(tmp_path / "hub"), "--json"])
    assert json.loads(capsys.readouterr().out) == [model]
    run(["list", "--max-params", "20", "--hub", str(tmp_path / "hub")])
    assert "test_resnet.x" in capsys.readouterr().out
    with pytest.raises(UserError, match="none of the"):
        run(["list", "resnet50*", "--hub", str(tmp_path / "hub")])


@pytest.mark.parametrize("flag", ["--eps", "--max-params"])
def test_an_empty_condition_is_refused_and_not_ignored(flag: str) -> None:
    from zoo.cli import run

    with pytest.raises(UserError, match="'' is not a number"):
        run(["list", flag, ""])


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("threat", [None, Threat(norm="L2", eps=0.3)])
def test_no_figure_of_the_list_is_cut_where_the_screen_is_narrow(threat: Threat | None, width: int) -> None:
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    screen.print(models_table(published(""), threat))
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    for name, found in published("").items():
        summary = found.entry.summary
        shown = (x.split()[-1] for x in lines if x.startswith(name[:20]) and f" {summary.clean:.1%} " in x)
        assert f"{summary.latency_ms:.2f}" in shown
    assert threat is None or "robust: at L2 0.3" in "".join(lines)


def test_a_norm_without_a_radius_is_not_ignored() -> None:
    from zoo.cli import run

    for flags in ([], ["--models"], ["--min-robust", "0.4"]):
        with pytest.raises(UserError, match="give --eps too"):
            run(["list", *flags, "--norm", "L2"])


@pytest.mark.parametrize(
    ("attack", "masked", "shown"),
    [
        ("autoattack", False, " 40.0% "),
        ("pgd", False, "<40.0% "),
        ("pgd", True, "<40.0%! "),
        ("autoattack", True, " 40.0%! "),
    ],
)
def test_the_list_marks_an_upper_bound_and_masked_gradients(
    attack: str, masked: bool, shown: str, tmp_path: Path, capsys
) -> None:
    from zoo.cli import run

    found = Robust(norm="Linf", eps=0.1, attack=attack, accuracy=0.4, n=10)
    at = Threat(norm="Linf", eps=0.1)
    models = {"a.x": entry(robust=(found,), threat=at, gradient_masking=masked).model_dump()}
    (tmp_path / "index.json").write_text(json.dumps({"models": models}))
    run(["list", "a.*", "--hub", str(tmp_path)])
    printed = capsys.readouterr().out
    assert shown in printed
    assert ("upper bound" in printed) == ("<" in shown)
    assert ("gradient masking" in printed) == masked


def test_what_an_index_says_is_text_on_the_screen_and_no_command_to_it(tmp_path: Path, capsys) -> None:
    from zoo.cli import run

    models = {"a.x": entry(data="[/red]digits").model_dump()}
    (tmp_path / "index.json").write_text(json.dumps({"models": models}))
    run(["list", "a.*", "--hub", str(tmp_path)])
    assert "[/red]digits" in capsys.readouterr().out
    with pytest.raises(ValidationError, match="data"):
        Summary.model_validate(SUMMARY.model_dump() | {"data": "\x1b[31mdigits"})


EVALUATION = {"attack": "pgd", "norm": "L2", "eps": 0.5, "accuracy": 1.0, "n": 1}


@pytest.mark.parametrize(
    ("figures", "where"),
    [
        ({"dense_params": 0}, "dense_params"),
        ({"mean": [0.1, 0.2, 0.3]}, "channels"),
        ({"threat": {"norm": "Linf", "eps": "Infinity"}}, "threat.eps"),
        ({"evaluations": [EVALUATION | {"options": {"a": [float("inf")]}}]}, "evaluations.0.options"),
    ],
)
def test_a_card_whose_figures_make_no_sense_is_refused(figures: dict, where: str, tmp_path: Path) -> None:
    from make_run import make_run

    file = make_run(tmp_path / "run").folder / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | figures))
    with pytest.raises(UserError, match=where):
        Card.load(file)


def test_a_card_that_no_index_can_hold_is_told_in_one_line(tmp_path: Path) -> None:
    from make_run import make_run

    card = make_run(tmp_path / "run").card
    for change, where in (({"dense_params": 10**30}, "dense_params"), ({"method": "a\nb"}, "method")):
        with pytest.raises(UserError, match=f"cannot be listed: {where}") as error:
            Summary.of(card.model_copy(update=change))
        assert "\n" not in str(error.value)


def test_cards_of_earlier_schemas_are_read_and_of_later_ones_refused(tmp_path: Path) -> None:
    from make_run import make_run

    card = make_run(tmp_path / "run").card
    content = json.loads(card.model_dump_json())
    new = ("name", "licence", "data_sha256", "threat", "calibration", "latency", "parity", "files", "commands")
    old = {key: value for key, value in content.items() if key not in new} | {"schema_version": 1}
    del old["weights"]["dtype"]
    path = tmp_path / "card.json"
    path.write_text(json.dumps(old))
    assert Card.load(path).model_copy(update={"schema_version": card.schema_version}) == card
    path.write_text(json.dumps(content | {"schema_version": SCHEMA + 1, "unheard_of": 1}))
    with pytest.raises(UserError, match=f"has schema {SCHEMA + 1}, this zoo knows {SCHEMA}: pip install --upgrade"):
        Card.load(path)


def test_accuracies_in_l0_stay_on_the_card_and_out_of_the_index() -> None:
    sparse = Evaluation(attack="sigma_zero", norm="L0", eps=5, accuracy=0.2, n=100)
    threat = Threat(norm="Linf", eps=8 / 255)
    card = make_card("a.b", threat, [pgd(threat, 0.4), sparse])
    assert [found.norm for found in Summary.of(card).robust] == ["Linf"]
