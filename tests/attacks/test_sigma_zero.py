"""sigma-zero is held to the exact L0 distance of linear classifiers, and to the published implementation."""

import math
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from zoo.attacks import AttackedModel, check_eps, distance
from zoo.attacks.sigma_zero import SigmaZero
from zoo.errors import UserError
from zoo.evaluation import Outcomes, Sweep, choose_sweeps, evaluate

SIDE = 5


def linear(seed: int, channels: int = 1) -> nn.Module:
    """Return a classifier with logits 0 and w x + b that is undecided about grey."""
    torch.manual_seed(seed)
    layer = nn.Linear(channels * SIDE**2, 2)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias.copy_(torch.tensor([0.0, -0.5 * layer.weight[1].sum().item()]))
    return nn.Sequential(nn.Flatten(), layer).eval()


def exact(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the fewest pixels that flip a linear classifier: those that lower the margin most, each as far as it can.

    A pixel lowers the margin by at most the sum of |w| over its channels, times the room to 0 or 1.
    """
    sign = torch.where(labels == 1, 1.0, -1.0).view(-1, 1, 1, 1)
    weight = model[1].weight[1].detach().view(1, *images.shape[1:]) * sign
    gain = (weight.abs() * torch.where(weight > 0, images, 1 - images)).sum(1).flatten(1)
    margin = model(images).diff(dim=1)[:, 0].detach() * sign.flatten()
    reached = gain.sort(1, descending=True).values.cumsum(1)
    return (reached <= margin[:, None]).sum(1) + 1


@pytest.mark.parametrize("channels", [1, 3])
def test_on_linear_classifiers_it_finds_the_exact_distance_or_at_most_one_pixel_more(channels: int) -> None:
    model = linear(0, channels)
    images = torch.rand(40, channels, SIDE, SIDE)
    labels = model(images).argmax(1)
    fewest = exact(model, images, labels).double()
    found = SigmaZero(steps=300).distances(model, images, labels)
    assert (found >= fewest).all()
    assert (found <= fewest + 1).all()
    assert (found == fewest).double().mean() >= 0.8


def test_distances_are_those_of_misclassified_images_in_zero_one() -> None:
    model = linear(1)
    images = torch.rand(20, 1, SIDE, SIDE)
    labels = model(images).argmax(1)
    labels[:3] = 1 - labels[:3]
    attack = SigmaZero(steps=100)
    moved = attack.distances(model, images, labels)
    assert moved[:3].tolist() == [0, 0, 0]
    radii = [1.0, 2.0, 4.0]
    outcome = attack(model, images, labels, radii)
    for eps, found, robust in zip(radii, outcome.adversarial, outcome.robust, strict=True):
        assert torch.equal(robust, moved > eps)
        assert torch.equal(model(found).argmax(1) == labels, robust)
        assert (distance(found, images, "L0") <= eps).all()
        assert 0 <= found.min() <= found.max() <= 1


class Counting(nn.Module):
    """Counts the images that it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.model(images)


def test_a_whole_curve_takes_one_search_and_is_resumed_from_kept_distances(tmp_path) -> None:
    images = torch.randint(0, 256, (32, 1, SIDE, SIDE), dtype=torch.uint8)
    model = Counting(linear(2)).eval()
    labels = model(images.float() / 255).argmax(1)
    attack, owner = SigmaZero(steps=30), "me"

    def curve(*eps: float) -> list[float]:
        model.seen = 0
        kept = Outcomes(tmp_path / "outcomes.npz", owner)
        return [e.accuracy for e in evaluate(model, images, labels, [Sweep(attack, eps)], outcomes=kept)][1:]

    found = curve(1.0, 2.0, 3.0)
    once = model.seen
    assert 30 * 32 <= once < 40 * 32
    assert curve(1.0, 2.0, 3.0, 5.0, 20.0)[:3] == found
    assert model.seen < 5 * 32  # the count of operations, and nothing else
    assert found == sorted(found, reverse=True)
    moved = attack.distances(model, images.float() / 255, labels)
    assert found == [(moved > e).double().mean().item() for e in (1, 2, 3)]


def test_it_is_the_attack_of_every_evaluation_in_l0() -> None:
    [sweep] = choose_sweeps(["quick"], ["L0"], [5.0, 10.0])
    assert sweep == Sweep(SigmaZero(steps=100), (5.0, 10.0))
    assert [s.attack.norm for s in choose_sweeps(["quick"])] == ["Linf", "Linf", "L2"]
    assert choose_sweeps(["sigma_zero"], None, [3.0]) == [Sweep(SigmaZero(), (3.0,))]
    assert {s.attack.norm for s in choose_sweeps(["fgsm", "sigma_zero"], ["Linf", "L0"])} == {"Linf", "L0"}
    with pytest.raises(UserError, match="fgsm does not search in L0"):
        choose_sweeps(["fgsm"], ["L0"])
    with pytest.raises(UserError, match=r"none of fgsm, pgd searches in L0"):
        choose_sweeps(["fgsm", "pgd"], ["Linf", "L0"])


@pytest.mark.parametrize("eps", [0.5, 8 / 255])
def test_an_l0_radius_that_is_no_whole_number_is_refused(eps: float) -> None:
    with pytest.raises(UserError, match="not a number of pixels: give whole numbers"):
        check_eps(eps, "L0", 75)
    with pytest.raises(UserError, match="give a smaller one"):
        check_eps(76, "L0", 75)
    images, labels = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
    with pytest.raises(UserError, match="not a number of pixels"):
        evaluate(linear(0), images, labels, [Sweep(SigmaZero(), (eps,))])
    with pytest.raises(UserError, match="not a number of pixels"):
        SigmaZero()(linear(0), torch.rand(1, 1, SIDE, SIDE), torch.zeros(1, dtype=torch.long), [eps])


@pytest.mark.parametrize("channels", [1, 3])
def test_it_agrees_with_the_published_implementation(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adversarial-library counts the channels of pixels, which are the pixels where there is one channel."""
    if find_spec("visdom") is None:
        monkeypatch.setitem(sys.modules, "visdom", ModuleType("visdom"))  # for plots that nothing here draws
    published = pytest.importorskip("adv_lib.attacks.sigma_zero").sigma_zero
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * SIDE**2, 4)
    ).eval()
    model.requires_grad_(False)
    images = torch.rand(48, channels, SIDE, SIDE)
    labels = model(images).argmax(1)
    attack = SigmaZero(steps=200, pixelwise=channels == 1)
    ours = attack.nearest(AttackedModel(model), images, labels)
    theirs = published(model, images, labels, num_steps=200)
    counts = [(x != images).flatten(1).sum(1).double() for x in (ours, theirs)]
    assert (counts[0] == counts[1]).double().mean() >= 0.95
    for k in (1, 2, 3, 5):
        shares = [(count > k).double().mean().item() for count in counts]
        assert math.isclose(*shares, abs_tol=0.011 + 1 / 48)
    assert (model(ours).argmax(1) != labels).all()
