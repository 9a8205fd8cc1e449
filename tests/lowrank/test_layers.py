"""Factorized layers against the dense layer whose weight is their product."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.linalg import orthonormality_error
from zoo.lowrank.applied_once import applied_once
from zoo.lowrank.factorize import factorize, fold
from zoo.lowrank.layers import FactorizedConv2d, FactorizedLinear

CONVS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (1, 5), "padding": (0, 2), "dilation": (1, 1)},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": "same"},
]


@pytest.mark.parametrize("options", CONVS)
@pytest.mark.parametrize("rank", [2, 8])
def test_convolution_with_the_product_weight(options: dict, rank: int) -> None:
    conv = nn.Conv2d(6, 10, **options)
    rank = min(rank, 10, conv.weight[0].numel())
    layer = FactorizedConv2d(conv, rank, "random")
    x = torch.randn(3, 6, 9, 11)
    expected = F.conv2d(x, layer.weight, conv.bias, conv.stride, conv.padding, conv.dilation)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.fold()(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_linear_with_the_product_weight(rank: int) -> None:
    layer = FactorizedLinear(nn.Linear(20, 12), rank, "random")
    x = torch.randn(4, 7, 20)
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.fold()(x), expected, atol=1e-5, rtol=1e-4)


def test_full_rank_from_weights_is_the_same_layer() -> None:
    conv = nn.Conv2d(4, 8, 3, padding=1)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(FactorizedConv2d(conv, 8)(x), conv(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_initialization_from_weights_is_the_nearest_product(rank: int) -> None:
    linear = nn.Linear(30, 10)
    tail = torch.linalg.svdvals(linear.weight)[rank:].norm()  # Eckart and Young
    error = (FactorizedLinear(linear, rank).weight - linear.weight).norm()
    torch.testing.assert_close(error, tail, atol=1e-5, rtol=1e-4)


def test_random_initialization_is_orthonormal_with_the_same_norm() -> None:
    conv = nn.Conv2d(16, 32, 3)
    layer = FactorizedConv2d(conv, 6, "random")
    assert orthonormality_error(layer.U) <= 1e-5
    assert orthonormality_error(layer.V) <= 1e-5
    torch.testing.assert_close(layer.weight.norm(), conv.weight.norm())
    assert layer.condition_number() == pytest.approx(1, abs=1e-5)


def test_singular_values_of_factors_that_are_not_orthonormal() -> None:
    layer = FactorizedLinear(nn.Linear(30, 20), 5)
    with torch.no_grad():
        for factor in (layer.U, layer.S, layer.V):
            factor.normal_()
    expected = torch.linalg.svdvals(layer.weight.double())[:5].float()
    torch.testing.assert_close(layer.singular_values(), expected, rtol=1e-4, atol=1e-4)


def test_factors_that_do_not_pay_fold_to_one_dense_layer() -> None:
    assert isinstance(FactorizedLinear(nn.Linear(20, 20), 10).fold(), nn.Linear)
    assert isinstance(FactorizedConv2d(nn.Conv2d(3, 8, 3), 8).fold(), nn.Conv2d)
    pair = FactorizedConv2d(nn.Conv2d(16, 16, 3, stride=2), 4).fold()
    assert [type(m) for m in pair] == [nn.Conv2d, nn.Conv2d]


def test_a_folded_pair_still_says_what_the_layer_said_that_it_replaced() -> None:
    dense = nn.Conv2d(8, 16, (3, 5), (2, 1), (1, 2), (1, 2))
    layer = FactorizedConv2d(dense, 3)
    pair = layer.fold()
    torch.testing.assert_close(pair.weight, layer.weight)
    torch.testing.assert_close(pair.bias, layer.bias)
    sizes = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    assert all(getattr(dense, name) == getattr(layer, name) == getattr(pair, name) for name in sizes)
    linear = FactorizedLinear(nn.Linear(9, 7), 2).fold()
    assert (linear.in_features, linear.out_features) == (9, 7)


def required(module: nn.Module) -> dict[str, bool]:
    return {name: p.requires_grad for name, p in module.named_parameters()}


@pytest.mark.parametrize("rank", [2, 8])
@pytest.mark.parametrize("convolution", ["matrix", "tucker"])
@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_stays_so_factorized_and_folded(frozen: str, convolution: str, rank: int) -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 12))
    trained = ("bias",) if frozen == "weight" else ("U", "S", "V", "weight")
    for layer in (model[0], model[2]):
        layer.get_parameter(frozen).requires_grad_(False)
    factorize(model, {"0": rank, "2": rank}, "weights", convolution)
    with torch.no_grad():
        folded = fold(model)
    for found in (required(model), required(folded)):
        assert all(requires == (name.rpartition(".")[2] in trained) for name, requires in found.items())


def test_a_folded_layer_is_frozen_if_all_that_it_is_computed_from_is() -> None:
    layer = FactorizedLinear(nn.Linear(30, 20), 3)
    layer.U.requires_grad_(False)
    layer.V.requires_grad_(False)
    assert required(layer.fold()) == {"0.weight": False, "1.weight": True, "1.bias": True}


def test_grouped_convolutions_and_impossible_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="ungrouped"):
        FactorizedConv2d(nn.Conv2d(8, 8, 3, groups=2), 2)
    with pytest.raises(ValueError, match=r"1\.\.10"):
        FactorizedLinear(nn.Linear(20, 10), 11)


@pytest.mark.parametrize("rank", [3, 8])
def test_applied_once_changes_neither_answers_nor_gradients(rank: int) -> None:
    """Rank 8 does not pay: one weight is applied instead of two."""
    model = nn.Sequential(
        FactorizedConv2d(nn.Conv2d(4, 8, 3, padding=1), rank), nn.Flatten(), FactorizedLinear(nn.Linear(288, 16), rank)
    )
    first, second = torch.randn(2, 2, 4, 6, 6)

    def answers() -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
        found = [model(x) for x in (first, second)]
        return found, torch.autograd.grad(sum(y.square().sum() for y in found), list(model.parameters()))

    expected = answers()
    with applied_once(model):
        torch.testing.assert_close(answers(), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        model[0].V.zero_()
    torch.testing.assert_close(model[0](first).mean((2, 3)), model[0].bias.expand(2, 8))  # nothing is kept


def test_applied_once_is_over_after_an_error() -> None:
    layer = FactorizedLinear(nn.Linear(9, 7), 2)
    with pytest.raises(ValueError, match="stop"), applied_once(layer):
        raise ValueError("stop")
    assert layer._applied is None


@pytest.mark.parametrize("training", [True, False])
def test_what_is_factorized_or_folded_stays_in_its_mode(training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Flatten(), nn.Linear(32 * 36, 64)).train(training)
    model = factorize(model, {"0": 4, "2": 60})
    assert all(module.training == training for module in model.modules())
    assert all(module.training == training for module in fold(model).modules())
