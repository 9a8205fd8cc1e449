"""How attacks transfer: on linear classifiers, whose worst images are known, and through the command."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import zoo.hub
from zoo.attacks.fgsm import FGSM
from zoo.attacks.pgd import PGD
from zoo.cli import run as zoo_command
from zoo.errors import UserError
from zoo.evaluation.transfer import transfer
from zoo.runs.run import CARD, Run

BUNDLED = Path(zoo.hub.__file__).parent / "bundled"
ROBUST, PLAIN = (BUNDLED / f"test_resnet.robust_lowrank50_{tag}" for tag in ("at_digits", "digits"))


def linear(weight: Tensor) -> nn.Module:
    """Return a classifier with logits 0 and <w, x - 1/2>."""
    layer = nn.Linear(weight.numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        layer.bias.copy_(torch.tensor([0.0, -0.5 * weight.sum().item()]))
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.fixture
def problem() -> tuple[dict[str, nn.Module], Tensor, Tensor]:
    """Three classifiers: the second shares no pixel with the first, the third is the first's opposite on a few."""
    torch.manual_seed(0)
    ones = torch.ones(16)
    halves = [torch.cat([ones[:8], 0 * ones[:8]]), torch.cat([0 * ones[:8], ones[:8]]), ones]
    images = torch.randint(100, 156, (50, 1, 4, 4), dtype=torch.uint8)
    models = dict(zip("abc", map(linear, halves), strict=True))
    return models, images, models["c"](images.float() / 255).argmax(1)


def test_the_matrix_is_the_accuracy_on_each_models_worst_images(problem) -> None:
    """On a linear classifier the worst image is x - eps sign(w) y, whatever the attack."""
    models, images, labels = problem
    x, eps = images.float() / 255, 0.05
    found = transfer(models, images, labels, FGSM(), eps)
    assert found.models == ("a", "b", "c")
    assert found.n == 50
    for i, source in enumerate(models.values()):
        direction = source[1].weight[1].sign().view(1, 1, 4, 4) * torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1)
        worst = (x + eps * direction).clamp(0, 1)
        for j, model in enumerate(models.values()):
            expected = (model(worst).argmax(1) == labels).double().mean().item()
            assert found.accuracy[i][j] == pytest.approx(expected, abs=0.021)
    assert found.clean[2] == 1.0
    # What a moves is not seen by b, and the other way round.
    assert found.accuracy[0][1] == found.clean[1]
    assert found.accuracy[1][0] == found.clean[0]


def test_an_attack_takes_all_its_steps(problem) -> None:
    """The margin of a linear classifier ends at its smallest, far beyond the border."""
    models, images, labels = problem
    whole = transfer(models, images, labels, PGD(steps=10, random_start=False), 0.05)
    step = transfer(models, images, labels, FGSM(), 0.05)
    assert whole.accuracy == step.accuracy
    assert whole.options["steps"] == 10
    stopped = PGD(steps=10, random_start=False)(models["c"], images.float() / 255, labels, [0.05]).adversarial[0]
    assert (models["a"](stopped).argmax(1) == labels).double().mean() > whole.accuracy[2][0]


def test_at_eps_zero_and_of_equal_models_all_figures_are_equal(problem) -> None:
    models, images, labels = problem
    none = transfer(models, images, labels, PGD(), 0.0)
    assert none.accuracy == (none.clean,) * 3
    twins = transfer({"a": models["c"], "b": models["c"]}, images, labels, PGD(), 0.02)
    assert twins.accuracy[0] == twins.accuracy[1]
    assert twins.accuracy[0][0] == twins.accuracy[0][1] < twins.clean[0]


def test_a_model_in_training_mode_and_an_impossible_radius_are_refused(problem) -> None:
    models, images, labels = problem
    with pytest.raises(UserError, match="eps 2 exceeds any perturbation"):
        transfer(models, images, labels, PGD(), 2.0)
    models["b"].train()
    with pytest.raises(UserError, match="training mode"):
        transfer(models, images, labels, PGD(), 0.1)


# The command.


def command(*words: str) -> None:
    zoo_command(["transfer", *words, "--n", "40", "--eps", "0.1"])


def test_it_prints_the_matrix_and_writes_a_page_with_its_figures(tmp_path: Path, capsys) -> None:
    page = tmp_path / "matrix.html"
    command("test_resnet.*digits", "--out", str(page))
    screen = capsys.readouterr().out
    assert "pgd-10 at Linf 0.1, 40 test images of digits, seed 0" in screen
    found = json.loads(page.with_suffix(".json").read_text())
    assert found["models"] == [ROBUST.name, PLAIN.name]
    assert (found["n"], found["attack"], found["eps"]) == (40, "pgd", 0.1)
    accuracy = found["accuracy"]
    assert len(accuracy) == len(accuracy[0]) == 2
    assert accuracy[0][0] > accuracy[1][1]  # the one trained against attacks withstands its own longer
    for share in (*found["clean"], *accuracy[0], *accuracy[1]):
        assert f"{share:.1%}" in screen
        assert f"{100 * share:.1f}" in page.read_text()


def test_two_runs_of_one_name_have_their_paths(tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(PLAIN, tmp_path / side / "run")) for side in "ab"]
    command(*map(str, folders), "--out", str(tmp_path / "x.html"))
    assert json.loads((tmp_path / "x.json").read_text())["models"] == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([PLAIN.name], "needs two models or more: .* is .* alone"),
        ([PLAIN.name, PLAIN.name], "needs two models or more"),
        (["nothing*"], r"no published model matches nothing\*"),
        (["test_*", "--data", "svhn"], r"no published model matches test_\* on svhn"),
        (
            [PLAIN.name, "resnet18.robust_lowrank90_at_c10"],
            "are of digits and cifar10: attacks transfer",
        ),
        (["test_*", "--attack", "pg"], "pgd"),
        (["test_*", "--attack", "fgsm", "--norm", "L0"], "fgsm does not search in L0"),
        (["test_*", "--out", "matrix.json"], "is not a page"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        command(*words)
    assert "\n" not in str(error.value)


def test_models_of_other_classes_are_refused(tmp_path: Path) -> None:
    other = Path(shutil.copytree(PLAIN, tmp_path / "other"))
    run = Run(other)
    run.card.model_copy(update={"class_names": tuple("abcdefghij")}).save(other / CARD)
    with pytest.raises(UserError, match="are of two sets of classes"):
        command(str(ROBUST), str(other))
