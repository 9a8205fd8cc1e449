"""Which layers robustness hangs on, where that is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.lowrank.factorize import factorize, fold
from zoo.lowrank.layers import FactorizedLinear
from zoo.probes import ProbeContext
from zoo.sensitivity.criticality import robust_criticality, weight_modules


def context_of(model: nn.Module, eps: float = 0.1) -> ProbeContext:
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8), torch.arange(40) % 3
    return ProbeContext(model.eval(), images, labels, eps)


def test_modules_are_layers_and_a_factorized_one_counts_once() -> None:
    model = fold(
        factorize(nn.Sequential(nn.Conv2d(1, 16, 3), nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, 3)), {"2": 4})
    )
    modules = weight_modules(model)
    assert {name: len(weights) for name, weights in modules.items()} == {"0": 1, "2": 2, "3": 1}
    assert sum(p.numel() for weights in modules.values() for p in weights) == sum(
        p.numel() for p in model.parameters() if p.ndim > 1
    )


def test_a_layer_that_nothing_depends_on_is_not_critical_and_weights_stay() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(16, 3), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x.flatten(1)) + 0.0 * self.unused(x.flatten(1))

    model = Gated()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = robust_criticality(context_of(model))
    assert found["unused"] == pytest.approx(0.0, abs=1e-6)
    assert found["used"] > 0.01
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_worst_movement_of_a_linear_classifier_is_found() -> None:
    """For two classes and one image the loss grows most along x (e_j - e_y), as far as the ball goes."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False)).eval()
    context = ProbeContext(model, torch.full((1, 1, 4, 4), 128, dtype=torch.uint8), torch.tensor([0]), eps=0.05)
    x, weight = context.adversarial.flatten(), model[1].weight.detach()
    direction = torch.stack([-x, x])
    worst = weight + 0.1 * weight.norm() * direction / direction.norm()
    grown = F.cross_entropy((worst @ x)[None], context.labels) - F.cross_entropy((weight @ x)[None], context.labels)
    assert robust_criticality(context)["1"] == pytest.approx(grown.item(), rel=1e-3)


def test_a_larger_ball_is_more_critical() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), FactorizedLinear(nn.Linear(8, 3), 2).fold())
    context = context_of(model)
    small, large = (robust_criticality(context, radius) for radius in (0.05, 0.2))
    assert all(small[name] < large[name] for name in small)
