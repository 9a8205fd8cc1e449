"""What is published belongs together, is never changed, and can be used by name."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hub_server import SUMMARY
from make_run import make_run
from safetensors.torch import load_file

import zoo
from zoo.attacks.fgsm import FGSM
from zoo.cli import run as cli
from zoo.errors import UserError
from zoo.hub.download import digest, read_index
from zoo.hub.index import Entry, Index
from zoo.hub.runs import copy_model, open_run
from zoo.hub.search import BUNDLED, find, open_hub, published
from zoo.publishing.measure import EvaluationSplit, evaluated
from zoo.publishing.network import MeasuredNetwork
from zoo.publishing.publish import Publication, entry_of, publish, without_places
from zoo.publishing.verify import verify
from zoo.runs.records import Evaluation
from zoo.runs.run import Run

NAME = "test_resnet.lowrank50_digits"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with one evaluation, which its weights really have."""
    run = make_run(tmp_path_factory.mktemp("run") / "run")
    found = evaluated(MeasuredNetwork(run), [], EvaluationSplit.of(run.card).first(60))
    made = run.card.provenance.model_copy(update={"command": "zoo train --data-dir /home/me/data --out x"})
    run.save_card(run.card.with_evaluations(found).model_copy(update={"provenance": made}))
    return run


@pytest.fixture(scope="module")
def hub(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "hub"
    publish(finished, str(folder), Publication(latency=False))
    return folder


def test_a_published_model_is_the_run_in_half_the_bytes(finished: Run, hub: Path) -> None:
    folder = find(NAME, str(hub)).folder()
    assert {path.name for path in folder.iterdir()} == {"card.json", "model.safetensors", "model.onnx", "README.md"}
    assert {path.name for path in hub.iterdir()} <= {NAME, "index.json", ".lock"}
    state = load_file(folder / "model.safetensors")
    assert {value.dtype for value in state.values() if value.ndim > 1} == {torch.float16}
    assert (folder / "model.safetensors").stat().st_size < 0.6 * finished.card.weights.bytes
    images = torch.rand(8, *finished.card.image_shape)
    expected, found = finished.model()(images), zoo.load(folder)(images)
    assert (found - expected).abs().max() < 0.01 * expected.abs().max()
    card = Run(folder).card
    assert (card.name, card.licence, card.weights.dtype, card.data_sha256) == (
        NAME, "Apache-2.0", "float16", EvaluationSplit.of(card).sha256,
    )  # fmt: skip
    assert max(card.parity.values()) <= 1e-4
    assert not any(b"/home/me" in path.read_bytes() for path in folder.iterdir())
    assert card.name in (folder / "README.md").read_text()
    assert f"{card.clean.accuracy:.2%}" in (folder / "README.md").read_text()


def test_verdicts_on_the_stored_bytes_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    cli(["evaluate", str(run.folder), "--n", "60", "--attacks", "fgsm", "--eps", "0.02", "--device", "cpu"])
    built = []
    original = Run.trained_model
    monkeypatch.setattr(Run, "trained_model", lambda self: built.append(self) or original(self))
    monkeypatch.setattr(FGSM, "perturb", lambda *_: pytest.fail("attacked again"))
    card = publish(Run(run.folder), str(tmp_path / "hub"), Publication(latency=False, onnx=False, dtype="float32"))
    stated = {(e.attack, e.eps): (e.n, e.accuracy) for e in Run(run.folder).card.evaluations}
    assert {(e.attack, e.eps): (e.n, e.accuracy) for e in card.evaluations} == stated
    assert len(built) == 2  # to store the weights, and to measure and export them
    with pytest.raises(pytest.fail.Exception, match="attacked again"):  # in fp16 it is another network
        publish(Run(run.folder), str(tmp_path / "half"), Publication(latency=False, onnx=False))


def test_a_name_that_is_taken_is_refused_before_any_work(finished: Run, hub: Path) -> None:
    before = (hub / "index.json").read_bytes()
    with pytest.raises(UserError, match=f"has {NAME} already"):
        publish(finished, str(hub), Publication(), lambda words: pytest.fail(words))
    assert (hub / "index.json").read_bytes() == before


def test_figures_of_other_weights_are_refused(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    wrong = Run(tmp_path / "run")
    clean = wrong.card.clean.model_copy(update={"accuracy": 0.97})
    wrong.save_card(wrong.card.model_copy(update={"evaluations": (clean,)}))
    with pytest.raises(UserError, match=r"states 97\.00% on 60 clean images, its weights have"):
        publish(wrong, str(tmp_path / "hub"), Publication())
    assert not (tmp_path / "hub").exists() or not any((tmp_path / "hub").iterdir())
    other = make_run(tmp_path / "never")
    with pytest.raises(UserError, match="never been evaluated"):
        publish(other, str(tmp_path / "hub"), Publication())


@pytest.mark.parametrize(
    ("hub", "words"),
    [
        ("https://example.org/zoo", "cannot be published to"),
        ("hf://nobody", "hf://ORG/REPO"),
        ("no/such,hub", "publish to one of them"),
    ],
)
def test_places_that_take_no_models(hub: str, words: str, finished: Run) -> None:
    with pytest.raises(UserError, match=words):
        publish(finished, hub, Publication())


def test_a_publication_that_cannot_end_is_refused_before_any_work(finished: Run, tmp_path: Path) -> None:
    for licence in ("x" * 300, "MIT\nfoo", "\x1b[31m"):
        with pytest.raises(UserError, match="--licence takes"):
            Publication(licence=licence)
    (tmp_path / "file").touch()
    for hub in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UserError, match="cannot be written"):
            open_hub(str(hub)).check_free(NAME)
    new = tmp_path / "new/hub"
    open_hub(str(new)).check_free(NAME)
    assert not new.parent.exists()


def test_what_lies_where_a_model_would_go_is_not_deleted(finished: Run, hub: Path, tmp_path: Path) -> None:
    other = tmp_path / "hub"
    shutil.copytree(hub, other)
    run = other / "test_resnet.mine"
    shutil.copytree(finished.folder, run)
    with pytest.raises(UserError, match="already exists and is not a published model"):
        publish(Run(run), str(other), Publication(tag="mine", latency=False))
    assert {path.name for path in run.iterdir()} == {path.name for path in finished.folder.iterdir()}


def test_a_licence_stays_where_none_is_given(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    run = Run(folder)
    run.save_card(run.card.model_copy(update={"licence": "CC-BY-NC-4.0"}))
    plain = Publication(latency=False, onnx=False)
    assert publish(run, str(tmp_path / "hub"), plain).licence == "CC-BY-NC-4.0"
    other = Publication(tag="other", licence="MIT", latency=False, onnx=False)
    assert publish(run, str(tmp_path / "hub"), other).licence == "MIT"


def test_results_are_never_written_beside_a_published_model(hub: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    cached = tmp_path / "cache/models" / NAME
    shutil.copytree(hub / NAME, cached)
    for folder in (hub / NAME, cached):
        with pytest.raises(UserError, match="what is published stays"):
            open_run(folder)
    monkeypatch.chdir(hub)
    with pytest.raises(UserError, match="what is published stays"):
        open_run(NAME)


def test_a_copy_of_another_hub_s_model_is_not_taken_for_that_of_the_environment(
    hub: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = open_run(NAME, str(hub))
    monkeypatch.setenv("ZOO_HUB", str(hub))
    assert open_run(NAME).folder == copy.folder
    other = copy.card.weights.model_copy(update={"sha256": "0" * 64})
    copy.save_card(copy.card.model_copy(update={"weights": other}))
    with pytest.raises(UserError, match="another model than that of"):
        open_run(NAME)


def test_copies_at_once_are_one_copy(hub: Path, tmp_path: Path, monkeypatch) -> None:
    """Another process's copy may appear between the look and the rename."""
    model, target = find(NAME, str(hub)), tmp_path / "copy"
    rename = Path.rename

    def late(self: Path, place: Path) -> Path:
        shutil.copytree(hub / NAME, place)
        return rename(self, place)

    monkeypatch.setattr(Path, "rename", late)
    assert copy_model(model, target) == target
    assert {path.name for path in tmp_path.iterdir()} == {"copy"}
    assert {path.name for path in target.iterdir()} == {path.name for path in (hub / NAME).iterdir()}


def test_a_folder_with_other_things_is_no_hub(finished: Run, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"neither empty nor a hub"):
        publish(finished, str(tmp_path), Publication())


ADD = """
import sys
from pathlib import Path
from zoo.hub.download import digest
from zoo.hub.index import Entry, Summary
from zoo.hub.search import open_hub
hub, summary, who = open_hub(sys.argv[1]), Summary.model_validate_json(sys.argv[2]), sys.argv[3]
for i in range(20):
    content = {"card.json": f"{who}{i}".encode(), "model.safetensors": b"x" * 1000}
    entry = Entry(files={name: digest(value) for name, value in content.items()}, summary=summary)
    def build(folder: Path) -> None:
        for name, value in content.items():
            (folder / name).write_bytes(value)
    hub.add(f"{who}.m{i}", entry, build)
"""


def test_two_publishers_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ADD, str(tmp_path / "hub"), SUMMARY.model_dump_json()]
    both = [subprocess.Popen([*command, who]) for who in ("a", "b")]
    assert [process.wait() for process in both] == [0, 0]
    models = published(str(tmp_path / "hub"))
    assert {f"{who}.m{i}" for who in "ab" for i in range(20)} <= set(models)
    for who in "ab":
        for i in range(20):
            assert models[f"{who}.m{i}"].folder().is_dir()
    assert not [path for path in (tmp_path / "hub").iterdir() if path.name.startswith(".publishing")]


def test_a_bucket_takes_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    bundled = read_index(open_hub(str(BUNDLED))).models
    name, entry = next(iter(bundled.items()))
    bucket = open_hub("memory://team/models")
    bucket.check_free(name)
    bucket.add(name, entry, lambda folder: shutil.copytree(BUNDLED / name, folder, dirs_exist_ok=True))
    found = find(name, "memory://team/models")
    assert found.hub.address == "memory://team/models"
    assert (found.folder() / "card.json").read_bytes() == (BUNDLED / name / "card.json").read_bytes()
    with pytest.raises(UserError, match="already"):
        bucket.check_free(name)


class Shaky(MemoryFileSystem):
    """A bucket that answers nothing while it is down; fsspec's own `exists` takes that for no."""

    protocol = "shaky"
    exists = AbstractFileSystem.exists
    down = False

    def info(self, path: str, **options: object) -> dict:
        if Shaky.down:
            raise RuntimeError("connection lost")  # no OSError, like those of the libraries behind s3:// and gs://
        return super().info(path, **options)


def test_an_index_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path, monkeypatch) -> None:
    fsspec.register_implementation("shaky", Shaky, clobber=True)
    bucket = open_hub("shaky://team/models")
    content = {"card.json": b"card", "model.safetensors": b"weights"}
    entry = Entry(files={name: digest(value) for name, value in content.items()}, summary=SUMMARY)
    bucket.add("a.x", entry, lambda folder: [(folder / name).write_bytes(value) for name, value in content.items()])
    monkeypatch.setattr(Shaky, "down", True)
    with pytest.raises(UserError, match="connection lost"):
        bucket.add("b.x", entry, lambda folder: None)
    monkeypatch.setattr(Shaky, "down", False)
    assert list(read_index(bucket).models) == ["a.x"]


def test_a_repository_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="hf://org/models gave an unexpected answer"):
        open_hub("hf://org/models").check_free("a.x")


def test_a_name_is_taken_wherever_a_run_is(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    cli(["evaluate", NAME, "--hub", str(hub), "--attacks", "fgsm", "--eps", "0.01", "--n", "30"])
    assert [e.attack for e in Run(Path("runs") / NAME).card.evaluations] == ["clean", "fgsm"]
    assert len(Run(hub / NAME).card.evaluations) == 1  # what is published stays
    cli(["download", NAME, "--hub", str(hub), "--to", "mine"])
    assert open_run(f"mine/{NAME}").card == Run(hub / NAME).card
    assert f"in mine/{NAME}" in capsys.readouterr().out
    with pytest.raises(UserError, match="did you mean"):
        cli(["export", NAME + "x", "--hub", str(hub)])
    assert open_run(NAME, str(hub)).folder == Path("runs") / NAME
    other = changed(hub, tmp_path / "other")
    index = json.loads((other / "index.json").read_text())
    index["models"][NAME]["files"]["model.safetensors"]["sha256"] = "0" * 64
    (other / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="another model than that of"):
        open_run(NAME, str(other))


def test_verify_finds_what_was_changed(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cli(["verify", NAME, "--hub", str(hub), "--n", "20"])
    assert "1 model agrees with its card" in capsys.readouterr().out
    shutil.copytree(hub, tmp_path / "hub")
    index = json.loads((tmp_path / "hub/index.json").read_text())
    index["models"][NAME]["summary"]["clean"] = 0.99
    (tmp_path / "hub/index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=f"1 check failed: {NAME}: index"):
        cli(["verify", NAME, "--hub", str(tmp_path / "hub"), "--n", "20"])
    (tmp_path / "hub" / NAME / "model.onnx").write_bytes(b"<html>")
    with pytest.raises(UserError, match=f"{NAME}: files"):
        cli(["verify", NAME, "--hub", str(tmp_path / "hub")])


def changed(hub: Path, copy: Path, **figures: object) -> Path:
    """Return a copy of a hub whose card states other figures, and whose index was made from that card."""
    shutil.copytree(hub, copy)
    file = copy / NAME / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | figures))
    index = json.loads((copy / "index.json").read_text())
    index["models"][NAME] = entry_of(copy / NAME).model_dump()
    (copy / "index.json").write_text(json.dumps(index))
    return copy


WRONG = {
    "parameters": {"params": 1},
    "parameters of the dense network": {"dense_params": 10**9},
    "MACs of the dense network": {"dense_macs": 10**9},
    "largest condition number": {"max_condition_number": 1.01},
    "Lipschitz bound": {"lipschitz_bound": 1.5},
    "card's files": {"files": []},
    "model": {"ranks": {"no_such_layer": 3}},
    "ONNX, relative difference": {"parity": {"1": 0.5}},
    "test split": {"data_sha256": "0" * 64},
    "signs of masked gradients": {
        "sanity": {"failures": ["zero_gradients"], "zero_gradient_share": 1, "accuracy_at_large_eps": 0, "n": 9}
    },
}


@pytest.mark.parametrize("figure", [{}, {"condition_number": 99.0}, {"rank": 3}, {"shape": [1, 2]}])
def test_verify_believes_no_row_of_a_layer(figure: dict, tmp_path: Path) -> None:
    name = "test_resnet.robust_lowrank50_digits"
    shutil.copytree(BUNDLED / name, tmp_path / name)
    card = json.loads((tmp_path / name / "card.json").read_text())
    card["layers"][-1] |= figure
    (tmp_path / name / "card.json").write_text(json.dumps(card))
    (tmp_path / "index.json").write_bytes(Index(models={name: entry_of(tmp_path / name)}).to_json())
    checks = verify(find(name, str(tmp_path)), 1)
    assert next(check.agrees for check in checks if check.figure == "layers") is not bool(figure)


@pytest.mark.parametrize("figure", WRONG)
def test_verify_believes_no_figure_of_a_card(figure: str, hub: Path, tmp_path: Path) -> None:
    found = find(NAME, str(changed(hub, tmp_path / "hub", **WRONG[figure])))
    assert next(check.agrees for check in verify(found, "all") if check.figure == figure) is False


def test_verify_compares_what_the_checks_for_masked_gradients_found(hub: Path, tmp_path: Path) -> None:
    sanity = json.loads((hub / NAME / "card.json").read_text())["sanity"]
    for share in ("zero_gradient_share", "accuracy_at_large_eps"):
        other = sanity | {share: 1 - sanity[share]}
        found = find(NAME, str(changed(hub, tmp_path / share, sanity=other)))
        assert next(x.agrees for x in verify(found, 1) if x.figure == "signs of masked gradients") is False


def test_verify_compares_what_each_part_of_an_ensemble_left(hub: Path, tmp_path: Path, monkeypatch) -> None:
    (clean,) = Run(hub / NAME).card.evaluations
    stated = Evaluation(attack="autoattack", norm="Linf", eps=0.1, accuracy=0.0, n=60, parts={"apgd": 0.6})
    found = find(NAME, str(changed(hub, tmp_path / "hub", evaluations=[clean.model_dump(), stated.model_dump()])))
    again = stated.model_copy(update={"parts": {"apgd": 0.1}})
    monkeypatch.setattr(
        "zoo.publishing.verify.evaluated", lambda run, group, images: [clean, again] if group else [clean]
    )
    checks = {check.figure: check.agrees for check in verify(found, "all")}
    assert (checks["autoattack Linf 0.1"], checks["autoattack Linf 0.1 after apgd"]) == (True, False)


@pytest.mark.parametrize(("accuracy", "agrees"), [(0.0, True), (0.9, False)])
def test_verify_repeats_probes(accuracy: float, agrees: bool, hub: Path, tmp_path: Path) -> None:
    """Nothing is proved of this network: its Lipschitz bound is far too large."""
    finding = {"probe": "lipschitz", "case": {"norm": "L2", "eps": 0.1}, "accuracy": accuracy, "n": 20}
    found = find(NAME, str(changed(hub, tmp_path / "hub", findings=[finding])))
    (check,) = (check for check in verify(found, "all") if check.figure == "lipschitz L2 0.1")
    assert check.agrees is agrees


def test_what_was_not_measured_is_said(capsys: pytest.CaptureFixture) -> None:
    name = "test_resnet.robust_lowrank50_digits"
    cli(["verify", name, "--n", "10"])
    assert f"not measured: latency, batch 1, of {name}\n" in capsys.readouterr().out


def test_a_published_command_names_no_folder_of_its_machine() -> None:
    command = "zoo train --arch resnet18 --data-dir /home/me/data --out=runs/x --config /home/me/mine.yaml --lr 0.1"
    assert without_places(command) == "zoo train --arch resnet18 --data-dir DIR --config mine.yaml --lr 0.1"


def test_a_bundled_model_is_what_its_card_says(capsys: pytest.CaptureFixture) -> None:
    cli(["verify", "test_resnet.robust_lowrank50_digits", "--n", "50"])
    assert "1 model agrees with its card" in capsys.readouterr().out


def test_every_bundled_model_is_small_and_complete() -> None:
    models = read_index(open_hub(str(BUNDLED))).models
    assert models
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 60e6
    for name in models:
        assert find(name, "").folder() == BUNDLED / name
        assert {path.name for path in (BUNDLED / name).iterdir()} == set(models[name].files)
        text = "".join(path.read_text() for path in (BUNDLED / name).glob("*.[jm][sd]*"))
        assert "/home/" not in text
        assert "/tmp/" not in text
