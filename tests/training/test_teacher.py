"""Distillation: a teacher's answers in the place of labels, in every search and loss that takes them."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from make_run import make_run
from replay_stand_ins import called_again
from saved_weights import same
from torch import Tensor, nn

from zoo.adversaries import ADVERSARIES, Threat
from zoo.cli import run as zoo
from zoo.data import open_data, to_unit
from zoo.errors import UserError
from zoo.methods.dense import Dense
from zoo.runs.config import TrainConfig
from zoo.runs.records import Sanity
from zoo.runs.run import Run
from zoo.training.captured_step import CapturedStep
from zoo.training.module import Classifier
from zoo.training.parts import Parts
from zoo.training.resume_check import check_same_recipe
from zoo.training.teacher import Teacher, open_teacher

TAUGHT = [name for name in ADVERSARIES.names() if ADVERSARIES.get(name).takes_soft_targets]
ROBUST = {"adversary": "fgsm_rs", "eps": "0.1", "arch": "test_resnet"}


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(T || p), spelled out."""
    return (target * (target / logits.softmax(1)).log()).sum(1).mean()


def distilled(name: str, target: Tensor, clean: Tensor, attacked: Tensor) -> Tensor:
    """The losses with a teacher's answers T, as the documentation writes them."""
    p, q = clean.softmax(1), attacked.softmax(1)
    return {
        "none": divergence(target, clean),
        "fgsm_rs": divergence(target, attacked),
        "n_fgsm": divergence(target, attacked),
        "pgd": 5 / 6 * divergence(target, attacked) + divergence(target, clean) / 6,
        "trades": divergence(target, clean) + 6 * divergence(p, attacked),
        "score": ((p - target).square().sum(1) + 4 * (q - p).square().sum(1)).mean(),
    }[name]


@pytest.mark.parametrize("name", [name for name in TAUGHT if name != "liet"])  # which takes its step in the loss
def test_each_loss_is_the_one_that_is_documented(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    images, labels, target = torch.rand(16, 1, 8, 8), torch.arange(16) % 5, torch.randn(16, 5).softmax(1)
    attacked = (images + 0.1 * torch.randn_like(images)).clamp(0, 1)
    found = ADVERSARIES.get(name)().loss(model, images, attacked, labels, Threat(soft_targets=target))
    torch.testing.assert_close(found["loss"], distilled(name, target, model(images), model(attacked)))


@pytest.mark.parametrize("name", ["fgsm_rs", "n_fgsm", "pgd"])
def test_the_search_moves_away_from_the_teacher_s_answer_whatever_the_label(name: str) -> None:
    """The teacher says class 1 and the labels 0: away from the one is towards the other."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    images, labels = 0.5 * torch.rand(8, 1, 8, 8) + 0.25, torch.zeros(8, dtype=torch.long)
    found = {
        taught: ADVERSARIES.get(name)().search(model, images, labels, Threat(0.05, 2, soft_targets=target))
        for taught, target in ((True, torch.tensor([[0.1, 0.9]]).expand(8, 2)), (False, None))
    }
    before = model(images).softmax(1)[:, 1]
    assert (model(found[True]).softmax(1)[:, 1] < before).all()
    assert (model(found[False]).softmax(1)[:, 1] > before).all()


def test_the_step_of_liet_moves_away_from_the_teacher_s_answer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    images, labels = 0.5 * torch.rand(8, 1, 8, 8) + 0.25, torch.zeros(8, dtype=torch.long)
    target = torch.tensor([[0.1, 0.9]]).expand(8, 2)
    found = ADVERSARIES.get("liet")().loss(model, images, images, labels, Threat(0.05, soft_targets=target))
    assert (found["logits"].softmax(1)[:, 1] < model(images).softmax(1)[:, 1]).all()


def small_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))


def test_a_student_that_is_its_teacher_has_nothing_to_learn_on_clean_images() -> None:
    student = small_net().eval()
    teacher = Teacher("itself", "", copy.deepcopy(student).requires_grad_(False))
    images, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 5
    plain = ADVERSARIES.get("none")()
    loss = plain.loss(student, images, images, labels, Threat(soft_targets=teacher(images)))["loss"]
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert max(p.grad.abs().max().item() for p in student.parameters()) < 1e-6
    student[4].bias.data[0] += 1
    moved = plain.loss(student, images, images, labels, Threat(soft_targets=teacher(images)))["loss"]
    assert moved.item() > 0.01


def test_no_gradient_reaches_the_teacher_and_copies_share_it() -> None:
    teacher = Teacher("one", "", small_net().eval())
    images = torch.rand(4, 1, 8, 8, requires_grad=True)
    answers = teacher(images)
    torch.testing.assert_close(answers.sum(1), torch.ones(4))
    assert not answers.requires_grad
    assert copy.deepcopy(teacher) is teacher


def a_teacher(folder: Path, **about) -> Run:
    return make_run(folder, compression=None, method="dense", **about)


def a_classifier(run: Run, adversary: str = "none") -> Classifier:
    data, config, parts = open_data("digits"), TrainConfig(batch_size=8), Parts(Dense(), ADVERSARIES.get(adversary)())
    student = make_run(run.folder.parent / "student", compression=None, method="dense")
    teacher = open_teacher(run, data, parts.adversary)
    return Classifier(student.trained_model().train(), parts, data, data.source(train=True), config, teacher)


def test_the_teacher_is_the_deployed_run_and_no_part_of_what_is_trained_or_saved(tmp_path: Path) -> None:
    run = a_teacher(tmp_path / "teacher")
    module = a_classifier(run)
    images = torch.rand(4, 1, 8, 8)
    assert module.teacher is not None
    torch.testing.assert_close(module.teacher(images), run.model()(images).softmax(1), atol=1e-5, rtol=1e-4)
    assert not any(isinstance(x, nn.BatchNorm2d) for x in module.teacher.network.modules())
    assert len(list(module.parameters())) == len(list(module.model.parameters()))
    assert all(name.startswith("model.") for name in module.state_dict())


def test_a_captured_step_asks_the_teacher_about_the_images_it_is_given(tmp_path: Path) -> None:
    module = a_classifier(a_teacher(tmp_path / "teacher"))
    step = CapturedStep(module.model, module.losses, module.on_after_backward, called_again)
    labels = torch.zeros(8, dtype=torch.long)
    for _ in range(2):
        images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
        assert module.teacher is not None
        expected = divergence(module.teacher(to_unit(images)), module.model(to_unit(images)))
        torch.testing.assert_close(step(images, labels)["loss"], expected, atol=1e-5, rtol=1e-4)


def test_a_taught_training_is_resumed_from_anywhere_to_the_same_bits(
    train_tiny, dying_at, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    teacher = a_teacher(tmp_path / "teacher")
    seen: list[Teacher] = []

    def remembered(*given) -> Teacher:
        seen.append(open_teacher(*given))
        return seen[-1]

    monkeypatch.setattr("zoo.training.trainer.open_teacher", remembered)
    monkeypatch.chdir(tmp_path)
    recipe = {**ROBUST, "method": "lowrank", "epochs": 2, "ema": 0.9, "teacher": "teacher"}
    whole = train_tiny(name="whole", **recipe)
    with dying_at(13):
        train_tiny(name="killed", **recipe)
    monkeypatch.chdir("/")
    zoo(["train", "--resume", str(tmp_path / "killed")])
    assert same(whole.folder, tmp_path / "killed")
    assert whole.card.training["teacher"] == {"name": "teacher", "sha256": teacher.card.weights.sha256}
    assert yaml.safe_load((whole.folder / "config.yaml").read_text())["teacher"] == str(tmp_path / "teacher")
    assert "teacher teacher knew no adversary" in capsys.readouterr().err
    for used, kept in zip(seen[0].network.parameters(), open_teacher_anew(teacher).network.parameters(), strict=True):
        assert torch.equal(used, kept)
        assert used.grad is None
    assert not any(module.training for module in seen[0].network.modules())


def open_teacher_anew(run: Run) -> Teacher:
    return open_teacher(run, open_data("digits"), ADVERSARIES.get("none")())


def test_labels_and_a_teacher_train_differently(train_tiny, tmp_path: Path) -> None:
    a_teacher(tmp_path / "teacher")
    taught = train_tiny("dense", name="taught", teacher=str(tmp_path / "teacher"))
    plain = train_tiny("dense", name="plain")
    assert not same(taught.folder, plain.folder)
    assert plain.card.training["teacher"] is None


@pytest.mark.parametrize(
    ("before", "now"), [({"teacher.sha256": "a"}, "b"), ({"teacher.sha256": "a"}, None), ({"epochs": 2}, "b")]
)
def test_resuming_with_another_teacher_is_refused(before: dict, now: str | None) -> None:
    with pytest.raises(UserError, match=r"config\.yaml has teacher\.sha256 (b|None), .* trained with (a|None)"):
        check_same_recipe(before, {"epochs": 2, "monitor": "pgd", "teacher.sha256": now}, Path("config.yaml"))


@pytest.mark.parametrize(
    ("changes", "adversary", "words"),
    [
        ({"class_names": tuple("abcdefghij")}, "none", r"10 classes \(a, b, c, \.\.\.\).* 10 classes \(0, 1, 2"),
        ({"image_shape": (1, 16, 16)}, "none", r"takes 1 x 16 x 16 images, .* has 1 x 8 x 8"),
        (
            {"sanity": Sanity(failures=("flat",), zero_gradient_share=1.0, accuracy_at_large_eps=0.5, n=8)},
            "fgsm_rs",
            r"masked gradients \(flat\)",
        ),
        ({}, "mart", r"cannot be combined with --adversary mart, .* fgsm_rs"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(tmp_path: Path, changes: dict, adversary: str, words: str) -> None:
    run = a_teacher(tmp_path / "teacher")
    run = SimpleNamespace(name="teacher", card=run.card.model_copy(update=changes), model=run.model)
    with pytest.raises(UserError, match=words) as told:
        open_teacher(run, open_data("digits"), ADVERSARIES.get(adversary)())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--teacher", "resnet18.nothing"], "resnet18.nothing"),
        (["--teacher", "no/such/run"], "no/such/run"),
        (["--teacher", "teacher", "--label-smoothing", "0.4"], "label-smoothing"),
        (["--teacher", "teacher", "--adversary", "mart"], "mart"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_teacher(tmp_path / "teacher")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        zoo(["train", "--arch", "test_resnet", "--out", str(tmp_path / "run"), *options])
    assert not (tmp_path / "run").exists()
