"""Each attack is held to its definition, on models whose worst case is known in closed form."""

import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.attacks import ATTACKS, Attack, AttackedModel, check_eps, format_eps, parse_eps
from zoo.attacks._attacked_model import SMALLEST_BATCH
from zoo.attacks._losses import cross_entropy
from zoo.attacks._random import RandomStreams
from zoo.attacks._threat import distance, project, random_in_ball, steepest
from zoo.attacks.apgd import APGD
from zoo.attacks.fgsm import FGSM
from zoo.attacks.pgd import PGD
from zoo.errors import UserError

SHAPE = (2, 4, 4)
PIXELS = math.prod(SHAPE)
FEWER = {"queries": 150, "steps": 20}
"""Settings that keep the long attacks short here."""


def short(attack: Attack) -> Attack:
    return replace(attack, **{k: v for k, v in FEWER.items() if k in {f.name for f in fields(attack)}})


INSTANCES = [
    *(
        short(ATTACKS.get(name)(norm=norm))
        for name in ATTACKS.names()
        if name != "autoattack"  # made of the others
        for norm in ATTACKS.get(name).norms
    ),
    APGD(norm="Linf", loss="dlr", steps=20),
    PGD(norm="Linf", steps=3, restarts=2),
    PGD(norm="L2", steps=3, random_start=False),
]
DUAL = {"Linf": 1, "L2": 2}


def radii(attack: Attack, *eps: float) -> list[float]:
    """Radii in the units of the attack's norm: whole numbers of pixels in L0."""
    return [float(math.ceil(10 * e)) for e in eps] if attack.norm == "L0" else list(eps)


NORM = pytest.mark.parametrize("norm", ["Linf", "L2"])
ATTACK = pytest.mark.parametrize("attack", INSTANCES, ids=repr)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def linear_model(seed: int = 0) -> nn.Module:
    """Two classes with logits 0 and w x + b, b such that grey images lie on the border."""
    torch.manual_seed(seed)
    layer = nn.Linear(PIXELS, 2)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias.copy_(torch.tensor([0.0, -0.5 * layer.weight[1].sum().item()]))
    return nn.Sequential(nn.Flatten(), layer).eval()


def grey_images(model: nn.Module, n: int) -> tuple[Tensor, Tensor]:
    """Images so far from 0 and 1 that no small perturbation is clipped, labelled as the model does."""
    images = 0.5 + 0.2 * (torch.rand(n, *SHAPE) - 0.5)
    return images, model(images).argmax(1)


def margin(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """How far the logit of the label is above the other one."""
    difference = model(images).double().diff(dim=1)[:, 0]
    return torch.where(labels == 1, difference, -difference).detach()


def four_classes(seed: int) -> nn.Module:
    """A random linear classifier."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 4)).eval()


@pytest.fixture(scope="module")
def trained():
    """A small network that has learnt where on two channels the bright half is, with its images."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(400, *SHAPE)
    left, top = images[:, 0].unflatten(2, (2, 2)).mean((1, 3)), images[:, 1].unflatten(1, (2, 2)).mean((2, 3))
    labels = 2 * (left[:, 0] > left[:, 1]).long() + (top[:, 0] > top[:, 1]).long()
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval(), images[:60], labels[:60]


# The closed form: within eps, a linear function falls by eps times the dual norm of its gradient.


@NORM
@pytest.mark.parametrize("name", ["fgsm", "pgd", "pgd without random start"])
def test_the_margin_of_a_linear_classifier_falls_by_exactly_eps_times_the_dual_norm(name, norm):
    model = linear_model()
    images, labels = grey_images(model, 64)
    attack = FGSM(norm=norm) if name == "fgsm" else PGD(norm=norm, steps=20, random_start=name == "pgd")
    weight = model[1].weight[1].detach().double()
    before = margin(model, images, labels)
    eps = 0.5 * before.min().item() / weight.norm(DUAL[norm]).item()
    outcome = attack(model, images, labels, [eps])
    fall = before - margin(model, outcome.adversarial[0], labels)
    worst = eps * weight.norm(DUAL[norm])
    # In L2 the random component of the start dies out geometrically, not at once.
    slack = 0.05 if name == "pgd" and norm == "L2" else 1e-3
    assert (fall <= worst * (1 + 1e-4) + 1e-6).all()
    assert (fall >= worst * (1 - slack) - 1e-6).all()


@NORM
@pytest.mark.parametrize("attack", [FGSM, PGD])
def test_a_linear_classifier_is_robust_exactly_where_its_margin_is_large_enough(attack, norm):
    model = linear_model()
    images, labels = grey_images(model, 200)
    needed = margin(model, images, labels) / model[1].weight[1].detach().double().norm(DUAL[norm])
    radii = [needed.quantile(q).item() for q in (0.1, 0.5, 0.9)]
    robust = attack(norm=norm)(model, images, labels, radii).robust
    for eps, row in zip(radii, robust, strict=True):
        clear = (needed - eps).abs() > 0.03 * eps
        assert torch.equal(row[clear], (needed > eps)[clear])


# The threat model.


@ATTACK
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**16), eps=st.floats(1e-4, 0.9))
def test_perturbations_stay_within_eps_and_images_in_zero_one(attack, seed, eps):
    model = four_classes(seed)
    images = torch.rand(6, *SHAPE).round(decimals=1)  # with pixels at 0 and 1
    [eps] = radii(attack, eps)
    outcome = attack(model, images, model(images).argmax(1), [eps])
    found = outcome.adversarial[0]
    assert found.min() >= 0
    assert found.max() <= 1
    assert (distance(found, images, attack.norm) <= eps).all()


@NORM
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), eps=st.floats(1e-3, 1))
def test_projection_keeps_what_is_inside_and_brings_the_rest_within_eps(norm, seed, eps):
    torch.manual_seed(seed)
    images = torch.rand(4, 3, 8, 8)
    far = project(images + torch.randn_like(images), images, eps, norm)
    assert (distance(far, images, norm) <= eps).all()
    near = (images + 0.5 * eps * random_in_ball(images, norm, RandomStreams.of(images, seed, "test"))).clamp(0, 1)
    assert torch.allclose(project(near, images, eps, norm), near, atol=1e-6)


@NORM
def test_random_starts_fill_the_ball(norm):
    images = torch.linspace(0, 1, 8000).view(4000, 1, 1, 2)  # equal images would have equal starts
    points = random_in_ball(images, norm, RandomStreams.of(images, 0, "test")).flatten(1)
    radius = distance(points.view_as(images), torch.zeros_like(images), norm)
    assert radius.max() <= 1 + 1e-6
    # In the plane the share of points within radius t is t^2, for both norms.
    assert (radius < 0.5).double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert points.mean(0).abs().max() < 0.05


def test_an_l2_step_has_length_one_even_where_squares_underflow_and_none_for_a_zero_gradient():
    gradient = torch.randn(3, 1, 4, 4) * torch.tensor([1.0, 1e-30, 0.0]).view(3, 1, 1, 1)
    lengths = torch.linalg.vector_norm(steepest(gradient, "L2").flatten(1), dim=1)
    assert lengths.tolist() == pytest.approx([1, 1, 0], abs=1e-5)


class Constant(nn.Module):
    """Says class 0 whatever it sees: its gradient is zero everywhere."""

    def forward(self, images: Tensor) -> Tensor:
        zero = images.sum((1, 2, 3)) * 0
        return torch.stack([zero + 1, zero, zero, zero], 1)


@ATTACK
def test_a_model_with_zero_gradients_is_attacked_without_nan(attack):
    outcome = attack(Constant().eval(), torch.rand(3, *SHAPE), torch.zeros(3, dtype=torch.long), radii(attack, 0.1))
    assert outcome.adversarial.isfinite().all()
    assert outcome.robust.all()


# Outcomes.


@ATTACK
def test_outcomes_agree_with_a_fresh_forward_pass(attack, trained):
    model, images, labels = trained
    outcome = attack(model, images, labels, radii(attack, 0.0, 0.02, 0.3))
    assert outcome.adversarial.shape == (3, *images.shape)
    for found, robust in zip(outcome.adversarial, outcome.robust, strict=True):
        clean = model(images).argmax(1) == labels
        assert torch.equal((model(found).argmax(1) == labels) & clean, robust)


@ATTACK
def test_at_eps_zero_robust_means_right(attack, trained):
    model, images, labels = trained
    outcome = attack(model, images, labels, [0.0])
    assert torch.equal(outcome.robust[0], model(images).argmax(1) == labels)
    assert torch.equal(outcome.adversarial[0], images)


@ATTACK
def test_a_misclassified_image_is_not_robust_and_stays_as_it_is(attack, trained):
    model, images, _ = trained
    wrong = (model(images).argmax(1) + 1) % 4
    outcome = attack(model, images, wrong, radii(attack, 0.05))
    assert not outcome.robust.any()
    assert torch.equal(outcome.adversarial[0], images)


@NORM
def test_robust_accuracy_falls_with_eps(norm, trained):
    model, images, labels = trained
    scale = 1 if norm == "Linf" else 3
    robust = PGD(norm=norm)(model, images, labels, [scale * e for e in (0, 0.01, 0.02, 0.05, 0.1, 0.3)]).robust
    shares = robust.double().mean(1)
    assert (shares.diff() <= 0).all()
    assert shares[0] > 0.9
    assert shares[-1] < 0.05


@NORM
def test_more_steps_and_restarts_are_not_weaker(norm, trained):
    model, images, labels = trained
    eps = [0.04 if norm == "Linf" else 0.15]

    def robust(attack: Attack) -> int:
        return int(attack(model, images, labels, eps).robust.sum())

    ten, forty = (PGD(norm=norm, steps=steps, random_start=False) for steps in (10, 40))
    assert robust(forty) <= robust(ten) <= robust(FGSM(norm=norm))
    assert robust(PGD(norm=norm, steps=40)) <= robust(PGD(norm=norm, steps=10))
    once, thrice = PGD(norm=norm, steps=3), PGD(norm=norm, steps=3, restarts=3)
    survivors = thrice(model, images, labels, eps).robust
    assert not (survivors & ~once(model, images, labels, eps).robust).any()


def test_fgsm_is_pgd_with_one_step(trained):
    model, images, labels = trained
    one = PGD(steps=1, relative_step=1.0, random_start=False)
    assert torch.equal(
        FGSM()(model, images, labels, [0.03]).adversarial, one(model, images, labels, [0.03]).adversarial
    )


@ATTACK
def test_a_figure_does_not_depend_on_the_other_radii(attack, trained):
    model, images, labels = trained
    small, middle, large = radii(attack, 0.01, 0.15, 0.3)
    alone = attack(model, images, labels, [middle])
    among = attack(model, images, labels, [small, middle, large])
    assert torch.equal(alone.adversarial[0], among.adversarial[1])


def test_equal_seeds_give_equal_results_and_the_global_random_state_is_untouched(trained):
    model, images, labels = trained
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = PGD(seed=3)(model, images, labels, [0.02])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(PGD(seed=3)(model, images, labels, [0.02]).adversarial, first.adversarial)
    assert not torch.equal(PGD(seed=4)(model, images, labels, [0.02]).adversarial, first.adversarial)


def test_attacks_run_under_inference_mode_and_autocast_as_without(trained):
    model, images, labels = trained
    plain = PGD()(model, images, labels, [0.03])
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(PGD()(model, images, labels, [0.03]).adversarial, plain.adversarial)


class Coarse(nn.Module):
    """Two logits that bf16 cannot tell apart: 100 and 100.1."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(PIXELS, 2)
        nn.init.constant_(self.head.weight, 1e-3)
        self.head.bias.data = torch.tensor([100.0, 100.1])

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


def test_bf16_gradients_never_decide_what_is_misclassified():
    model, images, labels = Coarse().eval(), torch.rand(8, *SHAPE), torch.ones(8, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(images).argmax(1) != labels).all()
    for attack in (FGSM(), PGD(steps=3), APGD(steps=5)):
        assert attack(model, images, labels, [0.1], gradients="bf16").robust.all()


def test_only_a_verdict_is_asked_for_again_in_fp32():
    seen: list[int] = []
    images, labels = torch.rand(8, *SHAPE), torch.ones(8, dtype=torch.long)
    attacked = AttackedModel(Coarse().eval(), tick=seen.append, gradients="bf16")
    values, gradient = attacked.gradient(images, cross_entropy, labels)
    assert sum(seen) == 8
    wrong, same_values, same_gradient = attacked.ascent(images, cross_entropy, labels)
    assert sum(seen) == 8 + 16
    assert not wrong.any()
    assert torch.equal(values, same_values)
    assert torch.equal(gradient, same_gradient)


def test_bf16_gradients_are_those_of_fp32_up_to_rounding(trained):
    model, images, labels = trained
    exact = AttackedModel(model).gradient(images, cross_entropy, labels)[1].flatten(1)
    rounded = AttackedModel(model, gradients="bf16").gradient(images, cross_entropy, labels)[1].flatten(1)
    assert rounded.dtype == torch.float32
    assert (torch.cosine_similarity(exact, rounded) > 0.99).all()
    assert not torch.equal(exact, rounded)


@pytest.mark.parametrize(("side", "batch_size", "most"), [(8, 250, 250), (32, 250, 32), (32, 10, 10), (224, 250, 8)])
def test_on_a_cpu_the_model_gets_fewer_large_images_at_once(side: int, batch_size: int, most: int):
    seen = []

    def model(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.flatten(1)[:, :2]

    images, labels = torch.rand(300, 1, side, side), torch.zeros(300, dtype=torch.long)
    attacked = AttackedModel(model, batch_size)
    assert attacked.at_once(images) == most
    for ask in (lambda: attacked.logits(images), lambda: attacked.ascent(images, cross_entropy, labels)):
        seen.clear()
        ask()
        assert max(seen) == most
        assert min(seen) >= min(SMALLEST_BATCH, most)
        assert len(seen) == math.ceil(300 / most)
        assert sum(seen) == (304 if most == 8 else 300)  # the last batch of four is filled


def test_the_model_is_left_as_it_was(trained):
    model, images, labels = trained
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.zero_grad()
    PGD()(model, images, labels, [0.03])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


# What the user gave.


@pytest.mark.parametrize(("text", "eps"), [("8/255", 8 / 255), ("0.03", 0.03), (" 1/2 ", 0.5), ("0", 0.0)])
def test_eps_is_read_as_a_number_or_a_fraction(text, eps):
    assert parse_eps(text) == eps
    assert parse_eps(format_eps(eps)) == pytest.approx(eps)


@pytest.mark.parametrize("text", ["", "x", "8/", "8/0", "-1/255", "nan", "inf", "1/2/3"])
def test_eps_that_is_none_is_refused(text):
    with pytest.raises(UserError):
        parse_eps(text)


@NORM
def test_eps_in_grey_levels_is_refused_with_what_was_meant(norm):
    with pytest.raises(UserError, match=r"128/255"):
        check_eps(128.0, norm, PIXELS)
    with pytest.raises(UserError, match=r"give a smaller one"):
        check_eps(128.5, norm, PIXELS)
    with pytest.raises(UserError):
        FGSM(norm=norm)(linear_model(), torch.rand(2, *SHAPE), torch.zeros(2, dtype=torch.long), [8.0])


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.rand(2, *SHAPE), torch.tensor([0, 2]), "classes 0..1"),
        (torch.rand(2, *SHAPE), torch.tensor([0, -1]), "classes 0..1"),
        (torch.rand(2, *SHAPE) * 255, torch.tensor([0, 1]), "inside the model|normalises"),
        (torch.randn(2, *SHAPE), torch.tensor([0, 1]), "normalises"),
        (torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.tensor([0, 1]), "float32"),
        (torch.rand(2, *SHAPE), torch.tensor([0]), "images"),
        (torch.rand(2, *SHAPE), torch.tensor([0.0, 1.0]), "class indices"),
        (torch.full((2, *SHAPE), torch.nan), torch.tensor([0, 1]), "nan"),
    ],
)
def test_images_and_labels_that_cannot_be_attacked_are_refused(images, labels, words):
    with pytest.raises(UserError, match=words):
        FGSM()(linear_model(), images, labels, [0.1])


@pytest.mark.parametrize(
    ("eps", "options", "words"),
    [
        (0.1, {}, r"such as \[8 / 255\]"),
        (["8/255"], {}, r"such as \[8 / 255\]"),
        ([0.1], {"batch_size": 0}, "batch_size must be at least 1"),
        ([0.1], {"gradients": "fp16"}, "gradients fp32 or bf16"),
    ],
)
def test_calls_that_make_no_sense_are_told_so(eps, options, words):
    with pytest.raises(UserError, match=words):
        FGSM()(linear_model(), torch.rand(2, *SHAPE), torch.tensor([0, 1]), eps, **options)


def test_labels_may_be_of_any_integer_type():
    model, images, labels = linear_model(), torch.rand(8, *SHAPE), torch.arange(8) % 2
    found = [APGD(steps=3)(model, images, labels.to(dtype), [0.1]).robust for dtype in (torch.int64, torch.int32)]
    assert torch.equal(*found)


def test_a_model_that_returns_nan_or_is_in_training_mode_is_refused():
    broken = linear_model()
    images, labels = torch.rand(2, *SHAPE), torch.zeros(2, dtype=torch.long)
    for value in (torch.nan, torch.inf, -torch.inf):
        broken[1].bias.data.fill_(value)
        with pytest.raises(UserError, match="NaN or infinite for 2 of 2"):
            FGSM()(broken, images, labels, [0.1])
    with pytest.raises(UserError, match="eval"):
        FGSM()(linear_model().train(), images, labels, [0.1])


def test_a_model_of_which_a_part_is_in_training_mode_is_refused_and_left_as_it_is():
    norm = nn.BatchNorm2d(SHAPE[0])
    model = nn.Sequential(nn.Sequential(norm, nn.Dropout()), nn.Flatten(), nn.Linear(PIXELS, 4)).eval()
    model[0].train()
    before = norm.running_mean.clone()
    with pytest.raises(UserError, match=r"^0 of the model is in training mode: call model.eval"):
        FGSM()(model, torch.rand(4, *SHAPE), torch.zeros(4, dtype=torch.long), [0.1])
    assert torch.equal(norm.running_mean, before)


def test_an_attack_that_leaves_its_ball_is_not_believed(trained):
    class Cheat(FGSM):
        def perturb(self, attacked: AttackedModel, images: Tensor, labels: Tensor, eps: float) -> Tensor:
            return torch.zeros_like(images)

    with pytest.raises(RuntimeError, match="ball"):
        Cheat()(*trained, [0.01])


@pytest.mark.parametrize(
    "options", [{"norm": "L0"}, {"steps": 0}, {"restarts": 0}, {"relative_step": 0}, {"norm": "L1"}]
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError):
        PGD(**options)
    with pytest.raises(UserError, match="random start"):
        PGD(restarts=2, random_start=False)


def test_an_attack_prints_as_the_call_that_makes_it():
    assert eval(repr(PGD(norm="L2", steps=7))) == PGD(norm="L2", steps=7)
