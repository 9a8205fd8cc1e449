"""Adversarial training: what every adversary must do, and each loss against its formula."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.adversaries import ADVERSARIES, Threat, _ascent
from zoo.adversaries._ascent import ce_ascent, pgd_ascent
from zoo.adversaries.liet import random_labels
from zoo.attacks._threat import distance
from zoo.attacks.pgd import PGD
from zoo.callbacks import OrthonormalRetraction, OverfittingGuard, SpectrumClamp
from zoo.cli import run as zoo
from zoo.data import load_test
from zoo.errors import UserError
from zoo.linalg import orthonormality_error
from zoo.lowrank.layers import factorized_layers
from zoo.methods import METHODS
from zoo.runs.run import Run
from zoo.training.module import Classifier

NAMES = ADVERSARIES.names()
SEARCHING = [name for name in NAMES if name != "none"]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(288, 5)
    )


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(16, 1, 8, 8), torch.arange(16) % 5


@pytest.mark.parametrize("name", NAMES)
def test_a_step_lowers_the_loss_and_leaves_the_search_no_trace(name, net, batch):
    """The search must not change BatchNorm's statistics, the mode, or any gradient of the weights."""
    adversary, threat = ADVERSARIES.get(name)(), Threat(eps=0.1, steps=3)
    images, labels = batch
    net[3].p = 0.0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(8):
        seen = int(net[1].num_batches_tracked)
        found = adversary.search(net.train(), images, labels, threat)
        assert net.training
        assert int(net[1].num_batches_tracked) == seen
        assert (distance(found, images, "Linf") <= 0.1 * adversary.reach + 1e-6).all()
        result = adversary.loss(net, images, found, labels, threat)
        assert int(net[1].num_batches_tracked) - seen in (1, 2)  # the training pass, or the clean and the attacked one
        assert all(p.grad is None or not p.grad.any() for p in net.parameters())
        assert result["logits"].shape == (16, 5)
        assert not result["logits"].requires_grad
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(result["loss"].item())
    assert min(losses[-3:]) < losses[0]


@pytest.mark.parametrize("steps", [1, 5])
def test_crafted_images_are_fp32_within_eps_and_higher_in_loss(steps, net, batch):
    images, labels = batch
    images[0], images[1] = 0.0, 1.0
    with torch.autocast("cpu", torch.bfloat16):
        found = ce_ascent(net.train(), images, labels, Threat(0.05), steps)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert (distance(found, images, "Linf") <= 0.05).all()
    before, after = (F.cross_entropy(net.eval()(x), labels).item() for x in (images, found))
    assert after > before


def test_the_search_does_not_underflow_in_fp16():
    """The gradient of one image's loss is 1e-6 here: fp16 holds it, and rounds a 512th of it to zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    nn.init.uniform_(model[1].weight, 1e-6, 2e-6)
    with torch.no_grad():
        model[1].weight[1:].neg_()
    images, labels = torch.full((512, 1, 8, 8), 0.5), torch.zeros(512, dtype=torch.long)
    with torch.autocast("cpu", torch.float16):
        found = ce_ascent(model, images, labels, Threat(0.1), 10)
    torch.testing.assert_close(found, images - 0.1, atol=1e-5, rtol=0)


def test_a_linear_model_is_searched_to_the_corner(batch):
    """The worst point of a linear loss is eps times the sign of its gradient, which ten steps must reach."""
    images = 0.5 * batch[0] + 0.25
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    found = pgd_ascent(model, images, images, lambda z: (z[:, 1] - z[:, 0]).sum(), 0.1, 10)
    sign = (model[1].weight[1] - model[1].weight[0]).detach().sign().view(1, 1, 8, 8)
    torch.testing.assert_close(found, images + 0.1 * sign, atol=1e-5, rtol=0)


def formula(name: str, clean: Tensor, attacked: Tensor, labels: Tensor) -> Tensor:
    """The losses as the papers write them, with sums and logarithms spelled out."""
    p, q = clean.softmax(1), attacked.softmax(1)
    own = torch.arange(len(labels)), labels
    kl = (p * (p / q).log()).sum(1)
    others = q.clone()
    others[own] = 0
    return {
        "none": -p[own].log().mean(),
        "pgd": -q[own].log().mean(),
        "fgsm_rs": -q[own].log().mean(),
        "n_fgsm": -q[own].log().mean(),
        "trades": -p[own].log().mean() + 6 * kl.mean(),
        "mart": (-q[own].log() - (1 - others.amax(1)).log() + 5 * kl * (1 - p[own])).mean(),
        "score": ((p - F.one_hot(labels, 5)).square().sum(1) + 4 * (q - p).square().sum(1)).mean(),
    }[name]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "liet"])  # which takes its step in the loss
def test_each_loss_is_its_paper_s(name, batch):
    torch.manual_seed(0)
    images, labels = batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).double()
    attacked = (images + 0.1 * torch.randn_like(images)).clamp(0, 1).double()
    found = ADVERSARIES.get(name)().loss(model, images.double(), attacked, labels, Threat())["loss"]
    expected = formula(name, model(images.double()), model(attacked), labels)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_label_smoothing_reaches_every_loss(name, net, batch):
    net[3].p = 0.0
    images, labels = batch
    sharp, smooth = (
        ADVERSARIES.get(name)().loss(net.eval(), images, images, labels, Threat(label_smoothing=s))["loss"].item()
        for s in (0.0, 0.2)
    )
    assert sharp != smooth


def linear(weight: Tensor) -> nn.Module:
    """A linear classifier of 8 x 8 images whose logits are products with the rows of the weight (K, 64)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, len(weight), bias=False))
    model[1].weight.data.copy_(weight)
    return model


def test_n_fgsm_steps_from_noise_beyond_the_ball_and_is_not_projected(batch):
    """Where the gradient's sign is known, what is left after the step is the noise: uniform within twice eps."""
    images, labels, eps = torch.full((16, 1, 8, 8), 0.5), torch.zeros(16, dtype=torch.long), 0.05
    adversary = ADVERSARIES.get("n_fgsm")()
    found = adversary.search(linear(torch.stack([torch.ones(64), -torch.ones(64)])), images, labels, Threat(eps))
    noise = found - images + eps
    assert noise.abs().max() <= 2 * eps + 1e-6
    assert (noise.abs() > eps).float().mean() == pytest.approx(0.5, abs=0.06)
    assert (distance(found, images, "Linf") > eps).all()
    assert (distance(found, images, "Linf") <= adversary.reach * eps + 1e-6).all()


@pytest.mark.parametrize("name", ["fgsm_rs", "n_fgsm", "pgd", "mart"])
def test_the_search_climbs_the_smoothed_loss(name, batch):
    """A confident answer is beyond what smoothed labels ask for: their loss falls where the plain one rises."""
    images, labels = torch.full((4, 1, 8, 8), 0.5), torch.zeros(4, dtype=torch.long)
    model = linear(torch.stack([torch.ones(64), -torch.ones(64)]))
    plain, smooth = (
        ADVERSARIES.get(name)().search(model, images, labels, Threat(0.05, 1, label_smoothing=s)).mean().item()
        for s in (0.0, 0.4)
    )
    assert plain < 0.5 < smooth


def test_liet_takes_its_step_in_the_loss(net, batch):
    """The loss is that of the paper at the point one signed step from the start, with the divergence growing."""
    images, labels = batch
    model, eps, beta = linear(torch.randn(5, 64)), 0.05, 7.0
    adversary = ADVERSARIES.get("liet")(beta=beta)
    start = adversary.search(model, images, labels, Threat(eps))
    assert (distance(start, images, "Linf") <= eps + 1e-6).all()
    losses = [
        adversary.loss(model, images, start, labels, Threat(eps, progress=progress))["loss"].item()
        for progress in (0.0, 0.5, 1.0)
    ]
    x = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
    moved = torch.clamp(start + eps * gradient.sign(), images - eps, images + eps).clamp(0, 1)
    p, q = model(start).softmax(1), model(moved).softmax(1)
    middle = (p + q) / 2
    divergence = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)).mean() / 2
    entropy = F.cross_entropy(model(moved), labels)
    expected = [(entropy + beta * progress * divergence).item() for progress in (0.0, 0.5, 1.0)]
    assert losses == pytest.approx(expected, rel=1e-4)


def test_liet_starts_along_the_direction_of_the_label(batch):
    """On a linear model every image's gradient is the same, so most of a start is plus or minus eps times its sign."""
    images, labels, eps = torch.full((200, 1, 8, 8), 0.5), torch.arange(200) % 2, 0.05
    weight = torch.randn(2, 64)
    start = ADVERSARIES.get("liet")().search(linear(weight), images, labels, Threat(eps))
    sign = (weight[1 - labels] - weight[labels]).sign().view(200, 1, 8, 8)
    side = (start - images) * sign / eps
    on_it = (side.abs() > 1 - 1e-4).flatten(1)
    assert 0.45 <= on_it.float().mean() <= 0.95  # the rest is noise
    assert all(len(set(row[on].sign().tolist())) == 1 for row, on in zip(side.flatten(1), on_it, strict=True))


@given(st.floats(0, 0.99), st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_random_labels_keep_their_share_and_split_the_rest(smoothing, classes):
    labels = torch.arange(12) % classes
    truth = random_labels(torch.zeros(12, classes), labels, smoothing)
    assert (truth >= 0).all()
    torch.testing.assert_close(truth.sum(1), torch.ones(12))
    torch.testing.assert_close(truth.gather(1, labels[:, None])[:, 0], torch.full((12,), 1 - smoothing))


def _at(adversary, adversarial, threat, model, images, labels):
    return adversary.loss(model, images, adversarial, labels, threat)


@pytest.mark.parametrize("name", SEARCHING)
def test_the_constraints_hold_under_any_adversary(name, net, batch):
    method = METHODS.get("robust_lowrank")()
    model = method.convert(net, {"0": 4, "5": 3}).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    retraction, clamp = OrthonormalRetraction(), SpectrumClamp(0.1)
    layers = [layer for _, layer in factorized_layers(model)]
    retraction.layers = clamp.layers = layers
    adversary, threat, (images, labels) = ADVERSARIES.get(name)(), Threat(0.1, 2), batch
    for _ in range(3):
        optimizer.zero_grad()
        objective = partial(_at, adversary, adversary.search(model, images, labels, threat), threat)
        method.loss(model, *batch, objective)["loss"].backward()
        optimizer.step()
        retraction.project_(optimizer)
        clamp.project_(optimizer)
        assert max(orthonormality_error(x.detach()) for layer in layers for x in (layer.U, layer.V)) <= 1e-5
        assert clamp.condition_number <= 1.1


@pytest.mark.measured
def test_adversarial_training_makes_a_run_more_robust(train_tiny):
    """On real digits, one recipe with and without an adversary."""
    shared = {"method": "lowrank", "epochs": 8, "eps": "0.12", "steps": 3, "n": 120, "lr": 0.1}
    plain = train_tiny(name="plain", **shared)
    robust = train_tiny(name="robust", adversary="pgd", **shared)
    found = [e for e in robust.card.evaluations if e.eps == 0.12]
    assert [(e.attack, e.norm, e.options["steps"]) for e in found] == [("pgd", "Linf", 20)]
    assert "val_pgd_accuracy" in robust.card.training
    assert robust.card.training["adversary_options"]["eps"] == 0.12
    assert not (robust.folder / "best.ckpt").exists()
    takes = {"image_shape": (1, 8, 8), "class_names": tuple("0123456789")}
    images, labels = load_test("digits", data_dir=None, download=False, **takes, n=120)
    share = [
        PGD(steps=20)(run.model(), images / 255, labels, [0.12]).robust.double().mean().item()
        for run in (plain, robust)
    ]
    assert share[1] > share[0] + 0.1


def test_the_command_saves_and_resumes_the_adversary(tmp_path):
    out = tmp_path / "run"
    options = ["--arch", "test_resnet", "--epochs", "1", "--n", "20", "--device", "cpu", "--precision", "32-true"]
    zoo(["train", *options, "--adversary", "trades", "--adversary.beta", "3", "--eps", "4/255", "--steps", "1",
         "--out", str(out)])  # fmt: skip
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert saved["adversary"] == {"name": "trades", "beta": 3.0}
    assert (saved["eps"], saved["steps"]) == ("4/255", 1)
    card = Run(out).card
    assert card.training["adversary"] == "trades"
    (out / "card.json").unlink()
    zoo(["train", "--resume", str(out)])
    assert Run(out).card.training["adversary_options"]["beta"] == 3.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--adversary", "pdg"], "did you mean pgd"),
        (["--eps", "8"], "8/255"),
        (["--eps", "0"], "eps"),
        (["--steps", "0"], "at least one"),
        *((["--adversary", name, "--steps", "5"], f"{name} takes one") for name in ("n_fgsm", "fgsm_rs", "liet")),
        (["--label-smoothing", "1"], "label-smoothing"),
        (["--adversary", "n_fgsm", "--eps-ramp", "5"], "longer than the training"),
        (["--adversary", "n_fgsm", "--adversary.noise", "9"], "noise"),
        (["--adversary", "liet", "--adversary.beta", "-1"], "beta -1"),
        (["--adversary", "fgsm_rs", "--adversary.alpha", "9"], "alpha"),
        *((["--adversary", name, "--adversary.beta", "-1"], "beta -1") for name in ("trades", "mart", "score")),
    ],
)
def test_mistakes_are_told(options, words, tmp_path):
    with pytest.raises(UserError, match=words):
        zoo(["train", "--out", str(tmp_path / "run"), *options])
    assert not (tmp_path / "run").exists()


def test_the_search_looks_at_the_network_in_eval_mode(net, batch, monkeypatch):
    modes: list[bool] = []
    net.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    _ascent.ce_ascent(net.train(), *batch, Threat(0.1), 3)
    assert modes == [False] * 3
    assert net.training


def test_an_epoch_that_collapses_is_taken_back(train_tiny, monkeypatch, capsys):
    """The probe is made to see a collapse in the second epoch of three."""
    seen = iter([(0.6, 0.6), (0.1, 0.8), (0.7, 0.7)])
    monkeypatch.setattr(OverfittingGuard, "probe", lambda *_: next(seen))
    at_start: list[dict[str, Tensor]] = []
    remember = Classifier.on_train_epoch_start

    def start(self):
        at_start.append({name: p.detach().clone() for name, p in self.named_parameters()})
        remember(self)

    monkeypatch.setattr(Classifier, "on_train_epoch_start", start)
    run = train_tiny(adversary="fgsm_rs", epochs=3, eps="0.1")
    assert all(torch.equal(value, at_start[1][name]) for name, value in at_start[2].items())
    assert any(not torch.equal(value, at_start[0][name]) for name, value in at_start[1].items())
    assert "catastrophic overfitting in epoch 2" in capsys.readouterr().err
    assert "rolled_back" in (run.folder / "metrics.csv").read_text()


@pytest.mark.measured
def test_a_run_without_validation_images_is_measured_at_its_radius_too(train_tiny):
    run = train_tiny("dense", adversary="fgsm_rs", eps="0.15", val_fraction=0.0, n=20)
    assert [e.attack for e in run.card.evaluations if e.eps == 0.15] == ["pgd"]


@pytest.mark.parametrize(
    ("pgd", "one_step", "collapsed"),
    [
        (0.0, 0.9, True),  # one step finds nothing, PGD everything
        (0.2, 0.7, True),
        (0.5, 0.9, False),  # PGD finds less than twice as much as before
        (0.2, 0.3, False),  # weak under both, as after a cut
        (0.2, 0.38, False),
    ],
)
def test_a_collapse_is_what_misleads_the_single_step(pgd, one_step, collapsed, tmp_path):
    guard = OverfittingGuard(torch.zeros(10, 1, 2, 2), torch.arange(10), 0.1, tmp_path / "none")
    assert not guard._has_collapsed(pgd, one_step)  # of nothing
    guard.best = 0.8
    assert guard._has_collapsed(pgd, one_step) == collapsed


def test_a_run_that_was_moved_before_it_is_resumed_keeps_its_best_epoch(train_tiny, dying_at, tmp_path, monkeypatch):
    """Validation is made to find the first epoch the best."""
    found = iter([0.9, 0.1, 0.1, 0.1])
    monkeypatch.setattr(
        "zoo.training.robust_validation.PGD_10",
        lambda model, images, labels, eps, **_: SimpleNamespace(robust=torch.full((1, 1), next(found))),
    )
    with dying_at(25):
        train_tiny("dense", name="killed", adversary="pgd", steps=1, epochs=3, eps="0.05")
    (tmp_path / "killed").rename(tmp_path / "moved")
    zoo(["train", "--resume", str(tmp_path / "moved")])
    assert Run(tmp_path / "moved").card.training["val_pgd_accuracy"] == pytest.approx(0.9)


def test_the_guard_measures_pgd_accuracy(train_tiny):
    run = train_tiny("dense", adversary="fgsm_rs", epochs=1, eps="0.1")
    options = run.card.training["adversary_options"]
    assert "steps" not in options
    assert options["alpha"] == 1.25
    assert options["eps"] == 0.1
    rows = (run.folder / "metrics.csv").read_text()
    assert "probe_pgd_accuracy" in rows
    assert "rolled_back" not in rows
