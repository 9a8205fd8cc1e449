"""The constraint-relaxation attack: exact where the worst case is known, and as strong as its parts promise."""

import math

import pytest
import torch
from torch import Tensor, nn

from zoo.attacks import AttackedModel
from zoo.attacks._threat import distance
from zoo.attacks.apgd import APGD
from zoo.attacks.apgd_t import APGDT
from zoo.attacks.cr import CR
from zoo.attacks.pgd import PGD
from zoo.data import load_test, open_data
from zoo.errors import UserError

SHAPE = (2, 4, 4)
DUAL = {"Linf": 1, "L2": 2}
NORM = pytest.mark.parametrize("norm", ["Linf", "L2"])
EPS = {"Linf": 0.1, "L2": 0.6}
"""Radii at which the network that reads digits is right on some images only."""

Problem = tuple[nn.Module, Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> Problem:
    """A small convolutional network that reads real digits, and images of the test split."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = open_data("digits").source(train=True)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(144, 10),
    )  # fmt: skip
    images, labels = train.fetch(torch.arange(1437)).float() / 255, train.labels
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(120):
        part = slice(step % 5 * 287, (step % 5 + 1) * 287)
        x, y = images[part], labels[part]
        model.eval()
        attacked = PGD(steps=3, seed=step)(model, x, y, [0.1]).adversarial[0]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(attacked), y).backward()
        optimizer.step()
    takes = {"image_shape": (1, 8, 8), "class_names": tuple("0123456789")}
    held_out, truth = load_test("digits", data_dir=None, download=False, **takes, n=120)
    return model.eval(), held_out.float() / 255, truth


def linear(classes: int, seed: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """Return a linear classifier, images that no small perturbation takes to 0 or 1, labels, and its weights."""
    torch.manual_seed(seed)
    layer = nn.Linear(math.prod(SHAPE), classes)
    images = 0.5 + 0.2 * (torch.rand(120, *SHAPE) - 0.5)
    with torch.no_grad():
        layer.bias.copy_(-(layer.weight @ images.mean(0).flatten()))
    model = nn.Sequential(nn.Flatten(), layer).eval()
    return model, images, model(images).argmax(1), layer.weight.detach().double()


@NORM
@pytest.mark.parametrize("classes", [2, 4])
def test_a_linear_classifier_is_robust_exactly_where_its_border_is_further_than_eps(norm, classes):
    """The border to class t lies at (z_y - z_t) / |w_y - w_t|, in the dual norm; with 4 classes all 3 others count."""
    model, images, labels, weight = linear(classes, seed=classes)
    logits = model(images).detach().double()
    falls = logits.gather(1, labels[:, None]) - logits
    slopes = (weight[labels][:, None] - weight[None]).norm(DUAL[norm], dim=2)
    border = (falls / slopes).scatter(1, labels[:, None], torch.inf).amin(1)
    for share in (0.1, 0.5, 0.9):
        eps = border.quantile(share).item()
        robust = CR(norm=norm)(model, images, labels, [eps]).robust[0]
        clear = (border - eps).abs() > 0.02 * eps
        assert torch.equal(robust[clear], (border > eps)[clear])
        assert bool((border < eps)[clear].any())
        assert bool((border > eps)[clear].any())


@NORM
@pytest.mark.parametrize("eps", [0.05, 0.4, 0.9])
def test_the_relaxed_search_returns_nothing_beyond_eps_or_outside_zero_one(norm, eps, digits):
    model, images, labels = digits
    images = images[:40].round(decimals=1)
    found = CR(norm=norm, steps=60)(model, images, labels[:40], [eps]).adversarial[0]
    assert found.min() >= 0
    assert found.max() <= 1
    assert (distance(found, images, norm) <= eps).all()


@NORM
def test_it_breaks_more_than_pgd_with_twenty_steps_and_about_as_much_as_targeted_apgd(norm, digits):
    model, images, labels = digits

    def robust(attack: CR | PGD | APGDT | APGD) -> int:
        return int(attack(model, images, labels, [EPS[norm]]).robust.sum())

    cr, pgd, targeted = robust(CR(norm=norm)), robust(PGD(norm=norm, steps=20)), robust(APGDT(norm=norm))
    assert 0 < cr < pgd
    assert abs(cr - targeted) <= 2


@NORM
def test_restarts_and_cycles_break_what_one_search_left(norm, digits):
    model, images, labels = digits
    once, cycles, whole = (
        CR(norm=norm, **options)(model, images, labels, [EPS[norm]]).robust[0]
        for options in ({"steps": 30, "restarts": 1}, {"restarts": 1}, {})
    )
    assert not bool((cycles & ~once).any())
    assert not bool((whole & ~cycles).any())


@NORM
@pytest.mark.parametrize("gradients", ["fp32", "bf16"])
def test_verdicts_depend_neither_on_the_batch_size_nor_on_who_else_stands(norm, gradients, digits):
    """Every second image is replaced by one that falls at once, or by one that never does."""
    model, images, labels = digits
    right = model(images).argmax(1) == labels
    images, labels = images[right][:48], labels[right][:48]
    attack, eps = CR(norm=norm, steps=60, restarts=2), [EPS[norm]]
    expected = attack(model, images, labels, eps, gradients=gradients).robust[0]
    assert 0 < expected.sum() < len(expected)
    if gradients == "fp32":
        for batch_size in (1, 7):
            assert torch.equal(attack(model, images, labels, eps, batch_size=batch_size).robust[0], expected)
    mine = torch.arange(48) % 2 == 0
    for others in (expected.nonzero()[0], (~expected).nonzero()[0]):
        x = torch.where(mine[:, None, None, None], images, images[others])
        y = torch.where(mine, labels, labels[others])
        assert torch.equal(attack(model, x, y, eps, gradients=gradients).robust[0][mine], expected[mine])


def test_images_that_fall_are_not_looked_at_again(digits):
    model, images, labels = digits
    seen: list[int] = []
    attack = CR()
    robust = attack(model, images, labels, [1.0], tick=seen.append).robust[0]
    assert not robust.any()
    assert sum(seen) < 15 * len(images)
    seen.clear()
    attack(model, images[:8], labels[:8], [1e-4], tick=seen.append)
    assert sum(seen) < 8 * attack.passes(10)  # far from every border: given up in the first cycle


def test_an_image_that_was_never_near_a_border_is_not_tried_again(digits):
    model, images, labels = digits
    far = (model(images[:8]), AttackedModel(model))[0].detach().topk(2, 1).values.diff(dim=1)[:, 0].abs() > 1
    counts = []
    for restarts in (1, 5):
        seen: list[int] = []
        CR(restarts=restarts)(model, images[:8][far], labels[:8][far], [1e-4], tick=seen.append)
        counts.append(sum(seen))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("options", [{"cycle": 2}, {"targets": 0}, {"steps": 0}, {"restarts": 0}])
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match="at least"):
        CR(**options)
