"""A deliberately masked model is flagged by the check that is meant for it, and a sound one is not."""

import math

import pytest
import torch
from torch import Tensor, nn

from zoo.attacks.autoattack import AutoAttack
from zoo.attacks.cr import CR
from zoo.attacks.fgsm import FGSM
from zoo.attacks.pgd import PGD
from zoo.data import load_test, open_data
from zoo.evaluation import Sweep, evaluate, sanity
from zoo.runs.records import Evaluation

Problem = tuple[nn.Module, Tensor, Tensor]


class Scaled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.model(x)


class Rounded(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return self.model((x * 16).round() / 16)


class DropoutLeftOn(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.model(x), 0.1, training=True)


@pytest.fixture(scope="module")
def digits() -> Problem:
    """A small network that reads real digits."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = open_data("digits").source(train=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train.fetch(torch.arange(1437)).float() / 255), train.labels).backward()
        optimizer.step()
    takes = {"image_shape": (1, 8, 8), "class_names": tuple("0123456789")}
    images, labels = load_test("digits", data_dir=None, download=False, **takes, n=200)
    return model.eval(), images, labels


SWEEPS = [Sweep(FGSM(), (0.0, 0.02, 0.05)), Sweep(PGD(random_start=False), (0.0, 0.02, 0.05))]


def test_a_sound_model_is_not_flagged(digits):
    model, images, labels = digits
    found = evaluate(*digits, [*SWEEPS, Sweep(CR(), (0.02, 0.05)), Sweep(AutoAttack(), (0.05,))])
    assert found[0].accuracy > 0.9
    assert 0 < found[-1].accuracy < found[0].accuracy
    assert list(found[-1].parts) == ["apgd", "apgd_t", "fab_t", "square"]
    result = sanity(model, images, labels, found)
    assert result.failures == ()
    assert result.accuracy_at_large_eps <= 0.1
    assert result.n == 100


@pytest.mark.parametrize(
    ("masked", "sign"),
    [(Scaled, "zero_gradients"), (Rounded, "zero_gradients"), (DropoutLeftOn, "random_outputs")],
)
def test_a_masked_model_is_flagged(masked, sign, digits):
    model, images, labels = masked(digits[0]).eval(), *digits[1:]
    assert sign in sanity(model, images, labels, evaluate(model, images, labels, SWEEPS)).failures


def test_square_finds_what_masked_gradients_hide(digits):
    """Rounding is no defence: the black-box part of AutoAttack breaks images that gradients cannot."""
    model, images, labels = Rounded(digits[0]).eval(), *digits[1:]
    found = evaluate(model, images[:24], labels[:24], [Sweep(AutoAttack(), (0.1,))])
    assert found[1].parts["fab_t"] > found[1].parts["square"]
    assert "black_box_stronger" in sanity(model, images, labels, found).failures


def curve(attack: str, *points: tuple[float, float]) -> list[Evaluation]:
    return [Evaluation(attack=attack, norm="Linf", eps=eps, accuracy=a, n=1000) for eps, a in points]


def test_more_steps_of_one_attack_may_break_more(digits):
    few, many = (
        Evaluation(attack="pgd", norm="L2", eps=0.3, accuracy=a, n=1000, options={"steps": steps})
        for steps, a in ((10, 0.6), (20, 0.5))
    )
    assert sanity(*digits, [few, many]).failures == ()
    fewer_left = few.model_copy(update={"accuracy": 0.4})
    assert sanity(*digits, [fewer_left, many]).failures == ("not_monotone",)


@pytest.mark.parametrize(
    ("attack", "one", "other"),
    [
        ("pgd", {"steps": 20, "random_start": True}, {"steps": 20, "random_start": False}),
        ("pgd", {"steps": 20, "restarts": 1}, {"steps": 10, "restarts": 5}),
        ("apgd", {"loss": "ce"}, {"loss": "dlr"}),
        ("apgd", {"seed": 0}, {"seed": 1}),
    ],
)
def test_settings_of_which_none_is_the_stronger_are_not_compared(attack, one, other, digits):
    figures = [
        Evaluation(attack=attack, norm="Linf", eps=0.1, accuracy=a, n=1000, options=options)
        for a, options in ((0.5, one), (0.55, other))
    ]
    assert sanity(*digits, figures).failures == ()
    stronger = figures[0].model_copy(update={"options": one | {"restarts": 5}, "accuracy": 0.55})
    assert sanity(*digits, [figures[0].model_copy(update={"options": one | {"restarts": 1}}), stronger]).failures == (
        "not_monotone",
    )


@pytest.mark.parametrize(
    ("attack", "cr", "failures"),
    [
        ("pgd", 0.55, ("not_monotone",)),
        ("fgsm", 0.55, ("not_monotone",)),
        ("apgd", 0.55, ()),
        ("square", 0.55, ("black_box_stronger",)),
        ("autoattack", 0.55, ()),
        ("autoattack", 0.45, ()),
        ("apgd_t", 0.55, ()),
        ("pgd", 0.45, ()),
    ],
)
def test_cr_is_believed_where_no_weaker_attack_beats_it(attack, cr, failures, digits):
    assert sanity(*digits, [*curve(attack, (0.1, 0.5)), *curve("cr", (0.1, cr))]).failures == failures


@pytest.mark.parametrize(("square", "failures"), [(0.6, ("black_box_stronger",)), (0.699, ()), (0.8, ())])
def test_square_alone_is_compared_with_gradient_attacks_beside_it(square, failures, digits):
    others = [*curve("fgsm", (0.1, 0.7)), *curve("pgd", (0.1, 0.7)), *curve("apgd_t", (0.1, 0.7), (0.2, 0.0))]
    assert sanity(*digits, [*others, *curve("square", (0.1, square))]).failures == failures


@pytest.mark.parametrize(
    ("evaluations", "sign"),
    [
        (curve("pgd", (0.01, 0.5), (0.02, 0.6)), "not_monotone"),
        ([*curve("fgsm", (0.01, 0.5)), *curve("pgd", (0.01, 0.6))], "not_monotone"),
        ([*curve("clean", (0.0, 0.9)), *curve("pgd", (0.0, 0.8))], "differs_at_eps_0"),
    ],
)
def test_figures_that_contradict_each_other_are_flagged(evaluations, sign, digits):
    assert sanity(*digits, evaluations).failures == (sign,)


def test_figures_of_other_images_are_not_compared(digits):
    few, many = curve("fgsm", (0.01, 0.5))[0], curve("pgd", (0.01, 0.55))[0]
    assert sanity(*digits, [few, many]).failures == ("not_monotone",)
    for other in ({"n": 100}, {"seed": 1}):
        assert sanity(*digits, [few.model_copy(update=other), many]).failures == ()


def test_one_step_that_is_too_long_may_break_less(digits):
    assert sanity(*digits, curve("fgsm", (8 / 255, 0.3), (0.5, 0.4))).failures == ()
    assert sanity(*digits, curve("fgsm", (2 / 255, 0.3), (8 / 255, 0.4))).failures == ("not_monotone",)


def test_images_stored_class_by_class_are_looked_at_from_all_classes(digits):
    model, images, labels = digits
    order = labels.argsort(stable=True)
    seen = []

    class Watched(nn.Module):
        def forward(self, x):
            seen.append(x)
            return model(x)

    sanity(Watched().eval(), images[order], labels[order], [])
    assert any(torch.equal(seen[0][0], x) for x in images[labels == 0].float() / 255)
    assert any(torch.equal(seen[0][-1], x) for x in images[labels == 9].float() / 255)


def test_where_most_images_are_of_one_class_guessing_gets_most_of_them():
    labels = torch.tensor([0] * 70 + [1] * 30)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].weight.mul_(1e-3)
        model[1].bias.copy_(torch.tensor([1.0, 0.0]))
    found = sanity(model, torch.randint(0, 256, (100, 1, 2, 2), dtype=torch.uint8), labels, [])
    assert found.accuracy_at_large_eps == pytest.approx(0.7)
    assert found.failures == ()


def test_figures_that_chance_explains_are_not(digits):
    evaluations = [*curve("fgsm", (0.01, 0.5), (0.02, 0.501)), *curve("pgd", (0.01, 0.502), (0.02, 0.3))]
    assert sanity(*digits, evaluations).failures == ()
    assert math.isclose(sanity(*digits, []).zero_gradient_share, 0)


class Constant(Scaled):
    """Always the same answer."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * self.model(x) + nn.functional.one_hot(torch.tensor(3), 10)


def test_a_network_that_learned_nothing_is_said_to_be_uninformative(digits: Problem) -> None:
    model, images, labels = digits
    assert sanity(model, images, labels, [clean(model, images, labels)]).uninformative == ()
    constant = Constant(model).eval()
    found = sanity(constant, images, labels, [clean(constant, images, labels)])
    assert found.uninformative == ("accuracy_of_guessing", "one_class")
    torch.manual_seed(0)
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    assert sanity(untrained, images, labels, [clean(untrained, images, labels)]).uninformative


def test_where_one_class_is_nearly_all_answering_it_is_guessing_but_no_sign_by_itself(digits: Problem) -> None:
    model, images, labels = digits
    rows = torch.cat([(labels == 3).nonzero()[:, 0].repeat(30), torch.arange(20)])
    found = sanity(model, images[rows], labels[rows], [clean(model, images[rows], labels[rows])])
    assert "one_class" not in found.uninformative


def clean(model: nn.Module, images: Tensor, labels: Tensor) -> Evaluation:
    """Return the accuracy on the images as they are."""
    with torch.no_grad():
        accuracy = (model(images.float() / 255).argmax(1) == labels).double().mean().item()
    return Evaluation(attack="clean", norm=None, eps=0.0, accuracy=accuracy, n=len(labels), seed=0)
