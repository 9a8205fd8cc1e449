"""What happens to accuracy when weights move, on models where it is known, and how figures of probes are kept."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_run import make_run
from torch import Tensor, nn

from zoo.backbone import create_backbone
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.evaluation import Outcomes, probe
from zoo.probes import PROBES, Case, Probe, ProbeContext
from zoo.probes.joint import Joint
from zoo.probes.weights import Weights
from zoo.runs.card import Card
from zoo.runs.run import CARD
from zoo.sensitivity.weight_ascent import ascend, movable, move_at_random

PIXELS = 16


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def context() -> ProbeContext:
    """A linear classifier of three classes that is right on 100 images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 3, bias=False)).eval().requires_grad_(False)
    images = torch.randint(0, 256, (100, 1, 4, 4), dtype=torch.uint8)
    return ProbeContext(model, images, model(images.float() / 255).argmax(1), eps=0.02)


def distances(model: nn.Module, before: list[Tensor]) -> list[float]:
    weights = [p for p in model.parameters() if p.ndim > 1]
    return [((p.detach() - b).norm() / b.norm()).item() for p, b in zip(weights, before, strict=True)]


def mean_loss(context: ProbeContext, images: Tensor) -> float:
    return nn.functional.cross_entropy(context.model(images), context.labels).item()


# How far weights move.


@settings(max_examples=10)
@given(radius=st.floats(1e-3, 0.5), seed=st.integers(0, 100))
def test_a_random_movement_has_the_relative_radius_in_every_layer_and_is_taken_back(radius, seed):
    model = create_backbone("test_resnet", 10, (3, 32, 32)).eval()
    everything = {name: value.clone() for name, value in model.state_dict().items()}
    before = [p.detach().clone() for p in model.parameters() if p.ndim > 1]
    with movable(model) as weights:
        move_at_random(weights, radius, torch.Generator().manual_seed(seed))
        assert distances(model, before) == pytest.approx([radius] * len(before), rel=1e-3)
    assert all(torch.equal(value, everything[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_the_worst_movement_stays_within_its_radii_and_raises_the_loss_each_time_they_grow(context, eps):
    before, losses = [p.detach().clone() for p in context.model.parameters()], [mean_loss(context, context.images)]
    for radius in (0.01, 0.05, 0.2):
        with movable(context.model) as weights:
            moved = ascend(context, weights, context.images, radius, eps, steps=10)
            assert all(d <= radius * (1 + 1e-5) for d in distances(context.model, before))
            assert (moved - context.images).abs().max() <= eps + 1e-7
            assert 0 <= moved.min() <= moved.max() <= 1
            losses.append(mean_loss(context, moved))
    assert losses == sorted(losses)
    assert not any(p.requires_grad for p in context.model.parameters())


def test_the_worst_movement_of_a_linear_loss_is_along_its_gradient():
    """Far from the border the cross-entropy is nearly linear: the gradient's direction is the closed form."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 2, bias=False)).eval()
    images, labels = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8), torch.zeros(8, dtype=torch.long)
    model[1].weight.data[0] -= 20.0
    context = ProbeContext(model, images, labels, eps=0.0)
    before = model[1].weight.detach().clone()
    (gradient,) = torch.autograd.grad(
        nn.functional.cross_entropy(model(context.images), labels), list(model.parameters())
    )
    with movable(model) as weights:
        ascend(context, weights, context.images, 0.1, 0.0, steps=10)
        change = model[1].weight.detach() - before
    assert change.norm().item() == pytest.approx(0.1 * before.norm().item(), rel=1e-4)
    assert torch.cosine_similarity(change.flatten(), gradient.flatten(), dim=0) > 0.9999


def test_batches_do_not_change_the_worst_movement(context):
    found = []
    for batch_size in (100, 7):
        other = ProbeContext(context.model, (context.images * 255).round().byte(), context.labels, 0.02, batch_size)
        with movable(other.model) as weights:
            ascend(other, weights, other.images, 0.1, 0.02, steps=5)
            found.append(weights[0].detach().clone())
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


# What it does to accuracy.


def test_the_worst_direction_hurts_more_than_random_ones_and_radius_zero_not_at_all(context):
    shares = {
        (case["images"], case["direction"], case["radius"]): Weights(draws=3).passed(context, case).double().mean()
        for case in Weights(radii=(0.0, 0.1)).cases(context)
    }
    assert shares["clean", "random", 0.0] == shares["clean", "worst", 0.0] == 1
    assert shares["pgd", "random", 0.0] == context.correct(context.adversarial).double().mean()
    for images in ("clean", "pgd"):
        assert shares[images, "worst", 0.1] < shares[images, "random", 0.1]


def test_images_and_weights_together_hurt_at_least_as_much_as_each_alone(context):
    def share(eps: float, radius: float) -> float:
        return Joint().passed(context, {"eps": eps, "radius": radius}).double().mean().item()

    assert share(0.0, 0.0) == 1
    both = share(0.02, 0.05)
    assert both < share(0.0, 0.05)
    assert both < share(0.02, 0.0)


# How figures are kept.


class Counting(Probe):
    """Counts how often it is asked."""

    asked = 0

    def cases(self, context: ProbeContext) -> list[Case]:
        return [{"k": 1.0}, {"k": 2.0}]

    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        Counting.asked += 1
        return torch.arange(len(context.labels)) < case["k"] * 10


def test_what_was_probed_is_not_probed_again(context, tmp_path):
    path, counting = tmp_path / "outcomes.npz", Counting()
    first = probe(context, [counting], Outcomes(path, "me"), progress=False)
    again = probe(context, [counting], Outcomes(path, "me"), progress=False)
    assert first == again
    assert Counting.asked == 2
    assert [finding.accuracy for finding in first] == [0.1, 0.2]


def test_a_probe_that_does_not_apply_is_a_named_skip(context):
    class Never(Counting):
        def obstacle(self, context: ProbeContext) -> str:
            return "no reason"

    (finding,) = probe(context, [Never()], progress=False)
    assert finding.accuracy is None
    assert finding.note == "no reason"


@pytest.mark.parametrize("name", PROBES.names())
def test_cases_of_a_probe_tell_its_figures_apart_and_share_their_keys(name, context):
    cases = PROBES.get(name)().cases(context)
    assert len({repr(case) for case in cases}) == len(cases) > 1
    assert len({tuple(case) for case in cases}) == 1
    assert all(isinstance(v, str) or math.isfinite(v) for case in cases for v in case.values())


def test_images_that_may_not_move_are_measured_once(context):
    still = ProbeContext(
        context.model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.long), 0.0
    )
    assert [case["eps"] for case in Joint().cases(still)] == [0.0] * 4


def test_the_command_writes_findings_beside_evaluations(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    argv = ["evaluate", str(run.folder), "--n", "20", "--eps", "0.1", "--attacks", "fgsm", "--probes", "joint"]
    zoo(argv)
    printed = capsys.readouterr().out
    card = Card.load(run.folder / CARD)
    assert [f.case["eps"] for f in card.findings] == [0.0] * 4 + [0.1] * 4
    assert all(f.probe == "joint" and f.n == 20 for f in card.findings)
    assert "joint by radius, 20 images" in printed
    zoo(argv)
    assert Card.load(run.folder / CARD) == card
    with pytest.raises(UserError, match="unknown probe 'joins': did you mean joint"):
        zoo([*argv[:-1], "joins"])
