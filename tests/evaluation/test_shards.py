"""An evaluation in parts: merged verdicts are those of one run, image by image, and nothing else is merged."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import zoo.hub
from zoo.attacks import ATTACKS, Attack
from zoo.attacks.autoattack import AutoAttack
from zoo.attacks.frame_rs import FrameRS
from zoo.attacks.pgd import PGD
from zoo.attacks.square import Square
from zoo.backbone.folded import folded
from zoo.cli import run as zoo_command
from zoo.data import load_test
from zoo.errors import UserError
from zoo.evaluation import Origin, Outcomes, Shard, Sweep, evaluate, merge, searches
from zoo.runs.run import CARD, Run

MODEL = Path(zoo.hub.__file__).parent / "bundled" / "test_resnet.robust_lowrank50_at_digits"
N = 42
"""Images: four parts of 11, 11, 10 and 10, none of which is a whole block of a batch."""
FEWER = {"queries": 20, "steps": 4, "targets": 2, "restarts": 2}
EPS = {"Linf": 0.12, "L2": 0.9, "L1": 3.0, "L0": 20}


PIXELS = {"sparse_rs": 2, "patch_rs": 4, "frame_rs": 28}
"""Pixels of the attacks that break every image with those of `EPS`; 8 x 8 pixels have no frame of fewer than 28."""


def radius(attack: Attack) -> float:
    return PIXELS.get(ATTACKS.name_of(attack), EPS[attack.norm])


def short(attack: Attack) -> Attack:
    if isinstance(attack, FrameRS):
        return replace(attack, queries=1)
    return replace(attack, **{k: v for k, v in FEWER.items() if k in {f.name for f in fields(attack)}})


@pytest.fixture(autouse=True)
def _short_autoattack(monkeypatch):
    standard = AutoAttack._standard
    monkeypatch.setattr(AutoAttack, "_standard", lambda self: [short(attack) for attack in standard(self)])


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A robust network and digits; at the radii of `EPS` every attack breaks some of them and leaves some."""
    run = Run(MODEL)
    images, labels = load_test(
        "digits", data_dir=None, download=False, image_shape=(1, 8, 8), class_names=run.card.class_names, n=N
    )
    return folded(run.model(), (1, 8, 8)), images, labels


ALL = pytest.mark.parametrize(
    "attack",
    [short(ATTACKS.get(name)(norm=norm)) for name in ATTACKS.names() for norm in ATTACKS.get(name).norms],
    ids=repr,
)


def evaluate_part(shard: Shard, problem, sweeps, whole: Path, batch_size: int = 250) -> None:
    model, images, labels = problem
    origin, rows = Origin.of("me", "digits", 0, images, labels), shard.rows(len(images))
    kept = shard.outcomes(whole, origin)
    evaluate(model, images[rows], labels[rows], sweeps, batch_size=batch_size, outcomes=kept, progress=False)


def merged(problem, sweeps, whole: Path, of: int = 4) -> Outcomes:
    return merge(whole, of, Origin.of("me", "digits", 0, *problem[1:]), searches(sweeps, 10))


@ALL
def test_merged_verdicts_are_those_of_one_run(attack, problem, tmp_path):
    """In any order of the parts, and with other batch sizes than the whole run's."""
    sweeps, outcomes = [Sweep(attack, (radius(attack),))], Outcomes()
    expected = evaluate(*problem, sweeps, outcomes=outcomes, progress=False)
    for k, batch_size in ((3, 250), (1, 32), (4, 17), (2, 20)):
        evaluate_part(Shard(k, 4), problem, sweeps, tmp_path / "outcomes.npz", batch_size)
    together = merged(problem, sweeps, tmp_path / "outcomes.npz")
    for name in searches(sweeps, 10):
        assert torch.equal(together.get(name), outcomes.get(name))
    assert evaluate(*problem, sweeps, outcomes=together, progress=False) == expected
    assert 0 < expected[1].accuracy < expected[0].accuracy


@ALL
def test_an_image_ends_at_the_same_pixels_alone_and_among_others(attack, problem):
    model, images, labels = problem
    x, eps = images.float() / 255, [radius(attack)]
    whole = attack(model, x, labels, eps).adversarial[0]
    for rows in ([5], torch.randperm(N)[:19].tolist()):
        assert torch.equal(attack(model, x[rows], labels[rows], eps).adversarial[0], whole[rows])


def test_a_killed_part_goes_on_where_it_was(problem, tmp_path, monkeypatch):
    sweeps, whole, calls = [Sweep(Square(queries=8), (EPS["Linf"],))], tmp_path / "outcomes.npz", []
    outcomes = Outcomes()
    evaluate(*problem, sweeps, outcomes=outcomes, progress=False)
    monkeypatch.setattr("zoo.evaluation.evaluator.Evaluator._pool", lambda evaluator, passes: 4)
    search = Square.perturb

    def killed_in_the_second(self: Square, *arguments) -> Tensor:
        calls.append(len(arguments[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return search(self, *arguments)

    evaluate_part(Shard(1, 2), problem, sweeps, whole)
    with monkeypatch.context() as patch:
        patch.setattr(Square, "perturb", killed_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            evaluate_part(Shard(2, 2), problem, sweeps, whole)
        with pytest.raises(UserError, match=r"outcomes\.2-of-2\.npz is not finished, \d+ of 21 images are still to be"):
            merged(problem, sweeps, whole, 2)
        assert not whole.exists()
        before = len(calls)
        evaluate_part(Shard(2, 2), problem, sweeps, whole)
        assert len(calls) - before < 21 / 4  # not from the start
    name = searches(sweeps, 10)[1]
    assert torch.equal(merged(problem, sweeps, whole, 2).get(name), outcomes.get(name))


@pytest.mark.parametrize(("n", "of"), [(10, 3), (12, 4), (7, 7), (5, 1)])
def test_every_image_is_in_one_part_and_parts_are_of_equal_size(n, of):
    parts = [list(range(n))[Shard(k, of).rows(n)] for k in range(1, of + 1)]
    assert sorted(i for part in parts for i in part) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# What does not belong together.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": "others"}, "other weights"),
        ({"seed": 1}, "another seed"),
        ({"data": "cifar10"}, "another data set"),
        ({"searches": 1}, "another version of zoo's attacks"),
        ({"owner": "?"}, "other images"),
    ],
)
def test_what_differs_is_named(changes, words, tmp_path):
    whole, origin = tmp_path / "outcomes.npz", Origin("me", "digits", 0, 4, 3, "owner")
    for k, own in ((1, origin), (2, replace(origin, **{"owner": "other"} | changes))):
        Shard(k, 2).outcomes(whole, own).put("clean", torch.ones(2, dtype=torch.bool))
    with pytest.raises(UserError, match=rf"outcomes\.2-of-2\.npz belongs to {words}: .*--shard 2/2"):
        merge(whole, 2, origin, ["clean"])
    assert not whole.exists()


def test_a_part_that_was_renamed_and_a_file_of_something_else_are_not_merged(tmp_path):
    whole, origin = tmp_path / "outcomes.npz", Origin("me", "digits", 0, 4, 3, "owner")
    Shard(1, 2).outcomes(whole, origin).put("clean", torch.ones(2, dtype=torch.bool))
    shutil.copy(tmp_path / "outcomes.1-of-2.npz", tmp_path / "outcomes.2-of-2.npz")
    with pytest.raises(UserError, match=r"2-of-2\.npz belongs to another part"):
        merge(whole, 2, origin, ["clean"])
    Outcomes(tmp_path / "outcomes.2-of-2.npz", "owner").put("clean", torch.ones(2, dtype=torch.bool))
    with pytest.raises(UserError, match=r"2-of-2\.npz belongs to another evaluation"):
        merge(whole, 2, origin, ["clean"])
    (tmp_path / "outcomes.2-of-2.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"2-of-2\.npz cannot be read"):
        merge(whole, 2, origin, ["clean"])


# The command.


@pytest.fixture
def run(tmp_path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "run"))


def command(run: Path, *options: str) -> None:
    zoo_command(["evaluate", str(run), "--attacks", "pgd", "--norms", "Linf", "--eps", "0.1", "--n", "20", *options])


def test_parts_leave_the_card_alone_and_a_merge_writes_that_of_one_run(run, tmp_path, capsys):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    command(other, "--seed", "4")
    whole = capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    command(run, "--shard", "2/2", "--seed", "4", "--batch-size", "16")
    screen = capsys.readouterr().out
    assert screen.startswith(
        f"part 2/2: 10 of 20 images evaluated, verdicts in {run / 'outcomes.2-of-2.npz'}; the card is"
    )
    assert "%" not in screen
    with pytest.raises(UserError, match=r"outcomes\.1-of-2\.npz is not there: give this command --shard 1/2"):
        command(run, "--merge", "2", "--seed", "4")
    command(run, "--shard", "1/2", "--seed", "4")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name in before} == before
    assert not (run / "outcomes.npz").exists()
    capsys.readouterr()
    command(run, "--merge", "2", "--seed", "4")
    line, _, rest = capsys.readouterr().out.partition("\n\n")
    assert line == f"2 parts, 20 images, merged in {run / 'outcomes.npz'}"
    assert rest == whole.replace(str(other), str(run))
    assert json.loads((run / CARD).read_text()) == json.loads((other / CARD).read_text())


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Path:
    """A run with both of its parts."""
    folder = Path(shutil.copytree(MODEL, tmp_path_factory.mktemp("judged") / "run"))
    for k in (1, 2):
        command(folder, "--shard", f"{k}/2")
    return folder


@pytest.fixture
def parts(judged, tmp_path) -> Path:
    return Path(shutil.copytree(judged, tmp_path / "parts"))


def test_a_merge_searches_nothing(parts, monkeypatch):
    monkeypatch.setattr("zoo.cli._evaluation._show", lambda *_: None)
    monkeypatch.setattr("zoo.evaluation.sanity", lambda *_: None)
    monkeypatch.setattr(PGD, "perturb", lambda *_: pytest.fail("searched again"))
    command(parts, "--merge", "2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--n", "18"], "1-of-2.npz belongs to another number of images"),
        (["--seed", "3"], "1-of-2.npz belongs to another seed"),
        (["--eps", "0.2"], r"1-of-2.npz has no verdicts of PGD\(.*\) at 0.2: .* the options that the parts had"),
        (["--attacks", "fgsm"], r"has no verdicts of FGSM"),
        (["--gradients", "bf16"], r"has no verdicts of PGD\(.*\) at 0.1 by bf16"),
        (["--merge", "4"], r"outcomes.1-of-4.npz is not there, nor are 3 more of 4 parts"),
        (["--merge", "0"], "at least 1"),
        (["--merge", "21"], "20 images cannot be cut into 21 parts: at most 20"),
    ],
)
def test_a_merge_of_what_does_not_belong_together_is_refused(parts, options, words):
    card = (parts / CARD).read_bytes()
    with pytest.raises(UserError, match=words) as error:
        command(parts, *(["--merge", "2"] if "--merge" not in options else []), *options)
    assert "\n" not in str(error.value)
    assert (parts / CARD).read_bytes() == card
    assert not (parts / "outcomes.npz").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shard", "5/4"], "of 4 parts, K is between 1 and 4"),
        (["--shard", "0/4"], "K is between 1 and 4"),
        (["--shard", "1/0"], "K is between"),
        (["--shard", "2"], "write K/N"),
        (["--shard=-1/4"], "write K/N"),
        (["--shard", "1/1.5"], "write K/N"),
        (["--shard", "21/21"], "20 images cannot be cut into 21 parts: at most 20"),
        (["--shard", "1/2", "--merge", "2"], "cannot be combined"),
        (["--shard", "1/2", "--probes", "weights"], "--probes look at all images"),
    ],
)
def test_parts_without_meaning_are_refused(run, options, words):
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(UserError, match=words) as error:
        command(run, *options)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in run.iterdir()) == before
