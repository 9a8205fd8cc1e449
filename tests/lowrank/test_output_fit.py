"""Factors that keep outputs: the best of their rank on the images that they were fitted to, and finite on any."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zoo.adversaries.fgsm_rs import FGSMRS
from zoo.backbone import with_normalization
from zoo.cli import run as zoo
from zoo.data import open_data
from zoo.data._split import train_val
from zoo.errors import UserError
from zoo.linalg import orthonormality_error
from zoo.lowrank.factorize import factorize
from zoo.lowrank.layers import Factorized, factorized_layers
from zoo.lowrank.moments import unfolded
from zoo.lowrank.output_fit import RIDGE, fit_to_outputs_
from zoo.methods.lowrank import Lowrank
from zoo.methods.rank_adaptive import RankAdaptive
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.report.spectra import spectra
from zoo.runs.config import TrainConfig
from zoo.runs.run import Run
from zoo.training.build import starting_model

GEOMETRIES = [
    {"padding": 1},
    {"stride": 2, "padding": (1, 0)},
    {"dilation": 2, "padding": "same"},
    {"stride": (1, 2), "bias": False},
]
FORMS = ["matrix", "tucker"]


def inputs(*shape: int, seed: int = 0) -> Tensor:
    """Positive, correlated across channels, as maps after a ReLU are."""
    g = torch.Generator().manual_seed(seed)
    mixed = torch.einsum("bc...,cd->bd...", torch.randn(shape, generator=g), torch.randn(shape[1:2] * 2, generator=g))
    return mixed.relu()


def cut(net: nn.Sequential, ranks: dict[str, int], form: str = "matrix") -> nn.Sequential:
    return factorize(copy.deepcopy(net), ranks, "weights", form)


def output_error(layer: nn.Module, dense: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return (layer.double()(x.double()) - dense.double()(x.double())).square().sum().item()


def fitted(dense: nn.Module, rank: int, x: Tensor, form: str = "matrix") -> tuple[Factorized, Factorized]:
    """Return one layer's factors before and after the fit."""
    net = nn.Sequential(dense)
    model = cut(net, {"0": rank}, form)
    before = copy.deepcopy(model[0])
    fit_to_outputs_(model, net, x, batch_size=5)
    return before, model[0]


def test_the_error_of_a_linear_layer_is_what_the_whitened_svd_discards() -> None:
    x, dense = inputs(200, 12), nn.Linear(12, 9)
    _, layer = fitted(dense, 4, x)
    x = x.double()
    moment = x.T @ x / len(x)
    values, vectors = torch.linalg.eigh(moment)
    whitened = torch.linalg.svdvals(dense.weight.detach().double() @ (vectors * values.clamp_min(0).sqrt()))
    expected = whitened[4:].square().sum().item()
    assert output_error(layer, dense, x) / len(x) == pytest.approx(expected, rel=1e-3)
    assert output_error(layer, dense, x) / len(x) >= expected * (1 - 1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", GEOMETRIES)
@pytest.mark.parametrize(("c", "n", "rank"), [(10, 12, 3), (6, 24, 7), (12, 8, 7)])
def test_outputs_are_kept_better_than_by_the_weights(form: str, options: dict, c: int, n: int, rank: int) -> None:
    x, dense = inputs(12, c, 9, 9), nn.Conv2d(c, n, 3, **options)
    before, after = fitted(dense, rank, x, form)
    plain, best = output_error(before, dense, x), output_error(after, dense, x)
    assert best < 0.98 * plain
    for factor in (after.U, after.V):
        assert orthonormality_error(factor.detach().float()) < 1e-5


@pytest.mark.parametrize("options", GEOMETRIES)
def test_no_core_and_no_outputs_are_better_for_the_channels_that_are_read(options: dict) -> None:
    """Gradients of the criterion vanish in the core, and in U along the manifold."""
    x, dense = inputs(12, 10, 9, 9).double(), nn.Conv2d(10, 12, 3, **options).double()
    _, layer = fitted(dense.float(), 5, x.float(), "tucker")
    layer, dense = layer.double(), dense.double()
    weight = dense.weight.detach()
    positions = unfolded(dense, x)
    read = x.square().mean()

    def criterion(product: Tensor) -> Tensor:
        rest = (product - weight).flatten(1)
        return (positions @ rest.T).square().sum() / len(positions) + RIDGE * read * rest.square().sum()

    core, u = torch.autograd.grad(criterion(layer.weight), (layer.S, layer.U))
    scale = criterion(torch.zeros_like(weight))
    assert core.norm() * layer.S.norm() < 1e-4 * scale
    normal = u - layer.U @ (layer.U.T @ u)
    assert normal.norm() < 1e-4 * scale


def test_an_unfolded_map_times_the_kernel_is_the_convolution() -> None:
    for options in GEOMETRIES:
        conv, x = nn.Conv2d(4, 5, 3, **options), torch.randn(2, 4, 9, 8)
        expected = conv(x).movedim(1, -1).flatten(0, -2)
        found = unfolded(conv, x) @ conv.weight.flatten(1).T + (0.0 if conv.bias is None else conv.bias)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_white_inputs_give_the_truncated_svd() -> None:
    x = torch.linalg.qr(torch.randn(60, 12))[0]
    before, after = fitted(nn.Linear(12, 9), 4, x)
    torch.testing.assert_close(after.weight, before.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after.S, before.S, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_at_full_rank_it_is_the_layer(form: str) -> None:
    for dense in (nn.Conv2d(6, 10, 3, padding=1), nn.Conv2d(12, 6, 1), nn.Conv2d(6, 12, 1)):
        _, layer = fitted(dense, min(dense.weight.flatten(1).shape), inputs(4, dense.in_channels, 7, 7), form)
        torch.testing.assert_close(layer.weight, dense.weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alive", [0, 1, 3])
def test_few_images_and_dead_channels_give_finite_factors(form: str, alive: int) -> None:
    x, dense = inputs(1, 12, 5, 5), nn.Conv2d(12, 16, 3, padding=1)
    x[:, alive:] = 0
    before, after = fitted(dense, 6, x, form)
    assert all(p.isfinite().all() for p in after.parameters())
    assert orthonormality_error(after.U.detach()) < 1e-5
    assert orthonormality_error(after.V.detach()) < 1e-5
    assert output_error(after, dense, x) <= output_error(before, dense, x)
    if not alive:  # nothing to go by but the weights
        own = (before.weight - dense.weight).norm()
        assert (after.weight - dense.weight).norm() <= own * (1 + 1e-5)


def test_a_network_is_left_as_it_was_but_for_its_factors() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.norm, self.head, self.unused = nn.BatchNorm2d(8), nn.Linear(8, 6), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

    net, x = Net().train(), torch.rand(20, 3, 8, 8)
    model = cut(net, {"conv": 3, "head": 2, "unused": 2})
    dense_before, before = copy.deepcopy(net.state_dict()), copy.deepcopy(model.state_dict())
    fit_to_outputs_(model, net, x)
    assert all(torch.equal(value, dense_before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert net.norm.training
    assert not net.conv._forward_hooks
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{layer}.{factor}" for layer in ("conv", "head") for factor in "USV"}


def test_batches_make_no_difference() -> None:
    x, net = inputs(12, 6, 9, 9), nn.Sequential(nn.Conv2d(6, 10, 3), nn.ReLU(), nn.Conv2d(10, 8, 3, stride=2))
    one, many = (cut(net, {"0": 4, "2": 3}, "tucker") for _ in range(2))
    fit_to_outputs_(one, net, x, batch_size=12)
    fit_to_outputs_(many, net, x, batch_size=5)
    for (_, a), (_, b) in zip(factorized_layers(one), factorized_layers(many), strict=True):
        torch.testing.assert_close(a.weight, b.weight, atol=1e-5, rtol=1e-3)


def test_outputs_that_are_not_finite_are_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 5))
    with pytest.raises(UserError, match="layer '0' reads or gives values that are not finite"):
        fit_to_outputs_(cut(net, {"0": 2}), net, torch.full((3, 6), torch.inf))


@pytest.mark.parametrize(
    ("method", "adversary"),
    [
        (Lowrank(init="outputs", convolution="tucker"), "none"),
        (RobustLowrank(init="outputs", calibration="adversarial", calibration_images=40), "fgsm_rs"),
        (RankAdaptive(init="outputs"), "none"),
    ],
)
def test_a_training_starts_from_them_and_is_reloaded(train_tiny, method, adversary: str) -> None:
    run = train_tiny(method, adversary=adversary, compression=0.5)
    again = Run(run.folder)
    assert again.method == method
    assert all(value.isfinite().all() for value in again.trained_model().state_dict().values())
    _, reason = spectra(again)
    assert "fitted to training images" in reason


def test_a_killed_training_goes_on_from_its_checkpoint(train_tiny, dying_at, tmp_path: Path) -> None:
    method = Lowrank(init="outputs", calibration_images=30)
    whole = train_tiny(method, "whole", epochs=2)
    with dying_at(whole.card.training["steps"] - 1):
        train_tiny(method, "killed", epochs=2)
    zoo(["train", "--resume", str(tmp_path / "killed")])
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_a_training_starts_nearer_to_the_dense_network() -> None:
    """On validation images, which the fit has not seen."""
    config, data = TrainConfig(arch="test_resnet", device="cpu", compression=0.7), open_data("digits")
    source = data.source(train=True)
    _, validation = train_val(source.labels, config.val_fraction)
    x = source.fetch(validation).float() / 255

    def logits(method: Lowrank, ranks: dict[str, int] | None = None) -> Tensor:
        torch.manual_seed(0)
        model = starting_model(config, method, data, ranks, FGSMRS())
        with torch.no_grad():
            return with_normalization(model, data.mean, data.std).eval()(x)

    dense = logits(Lowrank(), {})
    plain, clean, attacked = (
        (logits(method) - dense).norm().item()
        for method in (Lowrank(), Lowrank(init="outputs"), Lowrank(init="outputs", calibration="adversarial"))
    )
    assert clean < 0.8 * plain
    assert attacked < 0.8 * plain
    assert clean != attacked


def test_what_has_no_meaning_is_refused(train_tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="calibration adversarial goes with init outputs"):
        Lowrank(calibration="adversarial")
    with pytest.raises(UserError, match="calibration_images 0 is invalid"):
        RobustLowrank(calibration_images=0)
    with pytest.raises(UserError, match="give --adversary, or clean"):
        train_tiny(Lowrank(init="outputs", calibration="adversarial"))
    assert not (tmp_path / "run").exists()
