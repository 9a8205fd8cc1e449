"""Adversarial weight perturbation moves what it says by as much as it says, and puts it back."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.lowrank.layers import FactorizedConv2d, FactorizedLinear, factorized_layers
from zoo.lowrank.tucker import TuckerConv2d
from zoo.training.awp import WeightPerturbation


@pytest.fixture
def problem() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        FactorizedConv2d(nn.Conv2d(6, 12, 3), 5),
        nn.Flatten(),
        FactorizedLinear(nn.Linear(192, 10), 4, "random"),
    )
    with torch.no_grad():  # factors of plain low-rank training are not orthonormal
        model[3].U.mul_(2).add_(0.1 * torch.randn_like(model[3].U))
        model[3].V.add_(0.1 * torch.randn_like(model[3].V))
    return model.train(), torch.rand(32, 1, 8, 8), torch.arange(32) % 10


@pytest.mark.parametrize("gamma", [0.005, 0.1])
def test_every_weight_moves_by_the_relative_radius_and_back(gamma, problem):
    model, images, labels = problem
    weights = {"0": model[0], "3": model[3], "5": model[5]}
    before = {name: layer.weight.detach().clone() for name, layer in weights.items()}
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def loss() -> Tensor:
        return F.cross_entropy(model(images), labels)

    start = F.cross_entropy(model.eval()(images), labels).item()
    model.train()
    awp = WeightPerturbation(model, gamma)
    awp.perturb(loss)
    for name, layer in weights.items():
        moved = (layer.weight.detach() - before[name]).norm() / before[name].norm()
        assert moved.item() == pytest.approx(gamma, rel=1e-3)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items() if "1." in name)
    assert F.cross_entropy(model.eval()(images), labels).item() > start
    awp.undo()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert all(p.grad is None for p in model.parameters())
    assert len(list(factorized_layers(model))) == 2


def test_a_layer_without_a_gradient_stays(problem):
    """As behind a BatchNorm that starts at zero, the usual start of a residual branch."""
    model, images, labels = problem
    nn.init.zeros_(model[5].U)
    nn.init.zeros_(model[5].V)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    WeightPerturbation(model, 0.01).perturb(lambda: F.cross_entropy(model(images), labels))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_under_autocast_the_loss_is_taken_at_the_moved_weights(problem):
    """Autocast keeps the bf16 copies of weights that it made for the first loss."""
    model, images, labels = problem
    model.eval()
    awp = WeightPerturbation(model, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        awp.perturb(lambda: F.cross_entropy(model(images).float(), labels))
        inside = F.cross_entropy(model(images).float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(inside, F.cross_entropy(model(images).float(), labels))


def test_in_fp16_a_confident_network_s_weights_move_too():
    """Gradients of 1e-8 in the logits, as of a mean over a large batch: fp16 rounds them to zero."""
    torch.manual_seed(0)
    model, images, labels = nn.Sequential(nn.Linear(16, 5)), torch.rand(512, 16), torch.zeros(512, dtype=torch.long)
    with torch.no_grad():
        model[0].bias[0] = 14
    before = model[0].weight.detach().clone()
    with torch.autocast("cpu", torch.float16):
        WeightPerturbation(model, 0.01).perturb(lambda: F.cross_entropy(model(images).float(), labels))
    moved = (model[0].weight.detach() - before).norm() / before.norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_a_run_trains_with_it(train_tiny):
    run = train_tiny(awp=0.01, adversary="fgsm_rs", eps="0.1")
    assert run.card.training["awp"] == 0.01
    assert run.card.max_condition_number <= 1.1 + 1e-4
    plain = train_tiny(name="plain", adversary="fgsm_rs", eps="0.1")
    assert run.card.weights.sha256 != plain.card.weights.sha256


@pytest.mark.parametrize(
    "make", [lambda: TuckerConv2d(nn.Conv2d(16, 32, 3), 8), lambda: FactorizedConv2d(nn.Conv2d(16, 32, 3), 8)]
)
def test_factors_move_along_the_gradient_flow_each_at_its_own_scale(make):
    """Where S moves by t times its gradient, U moves by t r / ||S||^2 times its own, and V by t s / ||S||^2."""
    torch.manual_seed(0)
    layer, images = make(), torch.rand(8, 16, 6, 6)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    gradients = dict(
        zip("USV", torch.autograd.grad(layer(images).square().mean(), [layer.U, layer.S, layer.V]), strict=True)
    )
    WeightPerturbation(layer, 0.01).perturb(lambda: layer(images).square().mean())
    steps = {name: ((getattr(layer, name) - before[name]).norm() / gradients[name].norm()).item() for name in "USV"}
    size = before["S"].square().sum().item()
    assert steps["U"] / steps["S"] == pytest.approx(layer.U.shape[1] / size, rel=1e-3)
    assert steps["V"] / steps["S"] == pytest.approx(layer.V.shape[1] / size, rel=1e-3)


@pytest.mark.parametrize("frozen", ["U", "S", "V", "US"])
def test_a_layer_that_is_frozen_in_part_moves_as_far_by_the_other_factors(frozen):
    torch.manual_seed(0)
    layer, images = FactorizedLinear(nn.Linear(20, 30), 8), torch.rand(8, 20)
    for name in frozen:
        getattr(layer, name).requires_grad_(False)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    weight = layer.weight.detach().clone()
    WeightPerturbation(layer, 0.01).perturb(lambda: layer(images).square().mean())
    assert ((layer.weight - weight).norm() / weight.norm()).item() == pytest.approx(0.01, rel=1e-3)
    assert all(torch.equal(getattr(layer, name), before[name]) for name in frozen)
