"""The bound is never below what a margin moves, and is the formula where the formula is known."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.backbone import create_backbone
from zoo.channels import trace_channels
from zoo.channels.masks import ChannelMasks
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.lowrank.factorize import factorize
from zoo.regularizers import REGULARIZERS
from zoo.regularizers.weight_robust import WeightRobust, margin_bound
from zoo.runs.run import Run

EPS = 0.01
DIMS = ((1, 2, 3), (0, 2, 3))


class Residual(nn.Module):
    """A convolution with BatchNorm beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return F.relu(x + self.norm(self.conv(x)))


class Scale(nn.Module):
    """A scale per channel, of either sign."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(3 * torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return x * self.gamma


def networks(seed: int) -> list[nn.Module]:
    torch.manual_seed(seed)
    chain = nn.Sequential(nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 5))
    convolutions = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(), Residual(6),
        nn.Conv2d(6, 8, 3, padding=1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    low_rank = factorize(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)), {"0": 4})
    scaled = nn.Sequential(nn.Conv2d(3, 6, 3), Scale(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
    models = [chain, convolutions, low_rank, scaled]
    for model in models:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return [model.double().eval() for model in models]


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]) - logits


def folded_scale(model: nn.Module, weight: nn.Parameter) -> Tensor | float:
    """Return the scale of the BatchNorm after a convolution: the bound is on weights with it folded in."""
    for module, after in pairwise(model.modules()):
        if isinstance(module, nn.Conv2d) and module.weight is weight and isinstance(after, nn.BatchNorm2d):
            return (after.weight / (after.running_var + after.eps).sqrt())[:, None, None, None]
    return 1.0


@given(st.integers(0, 999), st.integers(0, 3))
@settings(max_examples=20)
def test_no_margin_moves_further_than_the_bound(seed: int, kind: int) -> None:
    """Each layer alone, in the worst direction of the gradient and in random ones."""
    model = networks(seed)[kind]
    images, labels = torch.rand(4, 3, 4, 4, dtype=torch.float64), torch.randint(0, 5, (4,))
    bound = margin_bound(model, images, labels, EPS)[0].exp()
    before = margins(model(images), labels)
    for weight in [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
        scale = folded_scale(model, weight)
        worst = torch.autograd.grad(margins(model(images), labels).sum(1).min(), weight)[0].sign()
        for direction in (worst, -worst, torch.randn_like(worst).sign()):
            kept = weight.data.clone()
            weight.data = kept + EPS * direction / scale
            moved = (margins(model(images), labels) - before).abs().amax(1)
            weight.data = kept
            assert (moved <= bound * (1 + 1e-9)).all()


def test_a_chain_of_linear_layers_has_the_bound_of_the_formula() -> None:
    """eta_N = eps ||z||_1 prod ||W||_inf ||W_i - W_j||_1, which is what the bound per channel is for constant rows."""
    a, b, c = (nn.Linear(n, m, bias=False).double() for n, m in ((6, 4), (4, 3), (3, 2)))
    for layer in (a, b):
        nn.init.constant_(layer.weight, 0.5)
    model = nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)
    x, y = torch.rand(3, 6, dtype=torch.float64), torch.tensor([0, 1, 0])
    z1, z2 = a(x).relu(), b(a(x).relu()).relu()
    apart = (c.weight[0] - c.weight[1]).abs().sum()
    inf = b.weight.abs().sum(1).max()
    expected = EPS * (x.sum(1) * inf * apart + z1.sum(1) * apart + 2 * z2.sum(1))
    torch.testing.assert_close(margin_bound(model, x, y, EPS)[0].exp(), expected)


def test_the_last_layer_alone_is_bounded_exactly() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5).double())
    x, y = torch.rand(2, 3, 2, 2, dtype=torch.float64), torch.tensor([1, 4])
    bound = margin_bound(model, x, y, EPS)[0].exp()
    before = margins(model(x), y)
    with torch.no_grad():
        model[1].weight[1] -= EPS
        model[1].weight[0] += EPS
    torch.testing.assert_close((margins(model(x), y) - before)[0].abs().max(), bound[0])


def test_norms_are_the_largest_row_and_column_sums() -> None:
    model = networks(0)[0]
    norms = margin_bound(model, torch.rand(1, 3, 4, 4).double(), torch.tensor([0]), EPS)[1]
    layers = [m.weight.abs() for m in model if isinstance(m, nn.Linear)]
    torch.testing.assert_close(norms, sum(w.sum(0).max() + w.sum(1).max() for w in layers))


def test_the_columns_of_a_grouped_convolution_are_those_of_each_group() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)).double()
    norms = margin_bound(model, torch.rand(1, 4, 4, 4).double(), torch.tensor([0]), EPS)[1]
    whole = torch.zeros(6, 4, 3, 3, dtype=torch.float64)
    whole[:3, :2], whole[3:, 2:] = model[0].weight.detach()[:3], model[0].weight.detach()[3:]
    sums = [w.abs().sum(dims).max() for w in (whole, model[3].weight.detach()[..., None, None]) for dims in DIMS]
    torch.testing.assert_close(norms.detach(), sum(sums))


def test_masks_on_channels_are_bounded() -> None:
    """Methods that search for masks go with it: a channel that is switched off moves nothing."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4, 5))
    images, labels = torch.rand(2, 3, 5, 5), torch.tensor([0, 1])
    whole = margin_bound(model, images, labels, EPS)[0]
    scores = {"0": torch.rand(8)}
    masks = ChannelMasks(model, trace_channels(model, (3, 5, 5)), scores, {"0": 3})
    masked = margin_bound(model, images, labels, EPS)[0]
    masks.remove()
    off = scores["0"].topk(5, largest=False).indices
    model[0].weight.data[off] = model[0].bias.data[off] = 0
    model[2].weight.data[:, off] = 0
    assert (masked < whole).all()
    torch.testing.assert_close(masked, margin_bound(model, images, labels, EPS)[0])


def test_a_deep_network_neither_overflows_nor_loses_its_gradient() -> None:
    layers = [layer for _ in range(60) for layer in (nn.Linear(64, 64), nn.ReLU())]
    for layer in layers[::2]:
        layer.weight.data *= 10
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 5))
    bound = margin_bound(model, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), EPS)[0].mean()
    assert torch.isfinite(bound)
    assert bound > 100  # the bound itself is far above what fp32 can hold
    bound.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert layers[0].weight.grad.abs().max() > 0


def test_the_mode_of_the_model_and_its_buffers_stay() -> None:
    model = networks(0)[1].train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    margin_bound(model, torch.rand(2, 3, 4, 4).double(), torch.tensor([0, 1]), EPS)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_descending_on_the_penalty_tightens_the_bound() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    plugin = WeightRobust(weight=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = margin_bound(model, images, labels, EPS)[0].mean().item()
    for _ in range(10):
        optimizer.zero_grad()
        plugin.penalty(model, images, labels)["penalty"].backward()
        optimizer.step()
    assert margin_bound(model, images, labels, EPS)[0].mean() < before


def test_it_goes_with_a_method_and_an_adversary(tmp_path) -> None:
    out = tmp_path / "run"
    recipe = ["--arch", "test_resnet", "--epochs", "1", "--n", "20", "--adversary", "fgsm_rs", "--device", "cpu"]
    more = ["--regularize", "weight_robust", "--regularize.weight", "0.1", "--trainer.limit_train_batches", "2"]
    more += ["--trainer.log_every_n_steps", "1"]
    zoo(["train", *recipe, *more, "--out", str(out)])
    assert Run(out).card.training["regularize"]["weight"] == 0.1
    assert [x["name"] for x in Run(out).card.applied] == ["robust_lowrank", "fgsm_rs", "weight_robust"]
    assert "margin_bound" in (out / "metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(("arch", "operation"), [("test_vit", "permute"), ("test_byobnet", "sigmoid")])
def test_what_it_cannot_bound_is_named(arch: str, operation: str) -> None:
    model = create_backbone(arch, 10, (3, 32, 32))
    with pytest.raises(UserError, match=operation):
        margin_bound(model, torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), EPS)


@pytest.mark.parametrize(
    ("model", "operation"),
    [
        (nn.Sequential(nn.Flatten(2), nn.Linear(16, 8)), "tokens"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Unflatten(1, (2, 4))), "unflatten"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)), "flatten"),
    ],
)
def test_channels_that_lose_their_place_are_refused(model: nn.Module, operation: str) -> None:
    with pytest.raises(UserError, match=operation):
        margin_bound(model, torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), EPS)


@pytest.mark.parametrize("arch", ["test_resnet", "resnet18", "vgg16_bn"])
def test_plain_convolutional_networks_are_bounded(arch: str) -> None:
    model = create_backbone(arch, 10, (3, 32, 32))
    assert torch.isfinite(margin_bound(model, torch.rand(1, 3, 32, 32), torch.tensor([0]), EPS)[0]).all()


def test_impossible_options_are_refused() -> None:
    for options in ({"eps": 0.0}, {"weight": -1.0}, {"norms": -1.0}, {"images": 0}):
        with pytest.raises(UserError):
            WeightRobust(**options)
    assert REGULARIZERS.names() == ["none", "weight_robust"]
