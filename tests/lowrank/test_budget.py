"""What a budget promises: the share of parameters that is gone, measured on the deployed model."""

import pytest
import timm
import torch
from torch import nn

from zoo.backbone import create_backbone, ends
from zoo.budget import Budget, larger_start
from zoo.errors import UserError
from zoo.lowrank.factorize import Convolution, factorize, fold, in_form, report, weight_layers
from zoo.lowrank.rank_selection import compressible
from zoo.methods import METHODS
from zoo.runtime.complexity import count_macs, count_params, positions

ARCHS = ["resnet18", "vgg16_bn", "mobilenetv2_100", "convnext_atto", "vit_tiny_patch16_224", "test_resnet"]
IMAGE = (3, 32, 32)


@pytest.mark.parametrize("method", ["lowrank", "robust_lowrank"])
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("compression", [0.3, 0.8, 0.9])
def test_compression_is_met_and_overshot_by_two_points_at_most(arch: str, compression: float, method: str) -> None:
    m = METHODS.get(method)(init="random")
    model = create_backbone(arch, 10, IMAGE)
    dense = count_params(model)
    deployed = m.deploy(m.convert(model, m.plan(model, Budget(compression=compression))))
    assert compression <= 1 - count_params(deployed) / dense <= compression + 0.02


def test_ranks_are_multiples_of_16_where_the_model_is_wide() -> None:
    model = create_backbone("resnet18", 10, IMAGE)
    ranks = METHODS.get("lowrank")().plan(model, Budget(compression=0.8))
    assert all(rank % 16 == 0 for rank in ranks.values())


def test_first_and_last_layer_and_what_cannot_be_factorized_stay_dense() -> None:
    model = create_backbone("mobilenetv2_100", 10, IMAGE)
    layers = weight_layers(model)
    ranks = METHODS.get("lowrank")().plan(model, None)
    assert ends(model) == ({"conv_stem"}, {"classifier"})
    assert not {"conv_stem", "classifier"} & ranks.keys()
    notes = {row.name: row.note for row in report(layers, ranks) if row.rank is None}
    assert notes["blocks.1.0.conv_dw"] == "depthwise"
    assert all(notes.values())
    assert len(report(layers, ranks)) == len(layers)


@pytest.mark.parametrize(("fraction", "merged"), [(0.5, 0.423), (0.2, 0.768)])
def test_rank_fraction_is_condlr_s_definition(fraction: float, merged: float) -> None:
    """VGG16 at CondLR's cr = 0.5 and 0.8: the shares of weights gone follow from the released code's formula."""
    model = create_backbone("vgg16_bn", 10, IMAGE)
    layers = weight_layers(model)
    ranks = METHODS.get("lowrank")().plan(model, Budget(rank_fraction=fraction))
    assert ranks["head.fc"] == 10
    weights = sum(x.n * x.m for x in layers)
    left = sum(x.factorized_size(ranks[x.name]) for x in layers)
    assert 1 - left / weights == pytest.approx(merged, abs=5e-4)


@pytest.mark.parametrize("compression", [0.0, 1.0, 1.5, -0.1])
def test_a_compression_outside_zero_to_one_is_refused(compression: float) -> None:
    with pytest.raises(UserError, match="invalid"):
        Budget(compression=compression)


def test_an_unreachable_compression_names_the_most_possible() -> None:
    model = create_backbone("mobilenetv2_100", 10, IMAGE)
    with pytest.raises(UserError, match=r"removes 9\d\.\d %"):
        METHODS.get("lowrank")().plan(model, Budget(compression=0.97))


def test_a_backbone_without_a_layer_to_compress_says_why() -> None:
    depthwise = nn.Sequential(*(nn.Conv2d(64, 64, 3, groups=64) for _ in range(3)), nn.Conv2d(64, 8, 1))
    with pytest.raises(UserError, match=r"3 of 4: depthwise"):
        compressible(weight_layers(depthwise), set())


@pytest.mark.parametrize("compression", [0.02, 0.1, 0.5, 0.9])
def test_a_training_whose_ranks_fall_starts_with_no_less_than_it_ends_with(compression: float) -> None:
    start = larger_start(Budget(compression=compression), 2.0).compression
    assert start <= compression
    assert 1 - start <= 2 * (1 - compression)


REDUCIBLE = [("resnet18", "tucker", 0.85), ("resnet18", "matrix", 0.8), ("vgg16_bn", "tucker", 0.9),
             ("vgg16_bn", "matrix", 0.85), ("convnext_tiny", "matrix", 0.82)]  # fmt: skip


@pytest.mark.parametrize("method", ["lowrank", "robust_lowrank"])
@pytest.mark.parametrize(("arch", "convolution", "reduction"), REDUCIBLE)
def test_both_budgets_are_met(arch: str, convolution: str, reduction: float, method: str) -> None:
    m = METHODS.get(method)(init="random", convolution=convolution)
    model = create_backbone(arch, 10, IMAGE)
    params, macs = count_params(model), count_macs(model, IMAGE)
    plain = m.plan(model, Budget(compression=0.8))
    ranks = m.plan(model, Budget(compression=0.8, macs_reduction=reduction))
    deployed = m.deploy(m.convert(model, ranks))
    assert 0.8 <= 1 - count_params(deployed) / params <= 0.82
    assert 1 - count_macs(deployed, IMAGE) / macs >= reduction
    assert ranks != plain
    assert min(ranks.values()) >= min(16, *plain.values())


def test_a_reduction_that_equal_shares_reach_changes_nothing() -> None:
    model = create_backbone("resnet18", 10, IMAGE)
    plan = METHODS.get("lowrank")().plan
    assert plan(model, Budget(compression=0.8, macs_reduction=0.5)) == plan(model, Budget(compression=0.8))


def test_an_unreachable_reduction_names_the_most_possible() -> None:
    model, m = create_backbone("vit_tiny_patch16_224", 10, IMAGE), METHODS.get("lowrank")(init="random")
    with pytest.raises(UserError, match=r"can remove 80\.\d %"):
        m.plan(model, Budget(compression=0.8, macs_reduction=0.9))


def test_products_that_cannot_be_counted_are_refused_in_words() -> None:
    model = nn.Sequential(*(nn.Conv2d(64, 64, 3) for _ in range(6)))
    with pytest.raises(UserError, match="image_shape"):
        METHODS.get("lowrank")().plan(model, Budget(compression=0.5, macs_reduction=0.6))


@pytest.mark.parametrize(
    ("method", "options", "why"),
    [
        ("mrs_prune", {}, "channels"),
        ("robust_lowrank", {"rank_budget": "adaptive"}, "adapt"),
        ("rank_adaptive", {}, "adapt"),
    ],
)
def test_what_does_not_choose_ranks_once_refuses_a_reduction(method: str, options: dict, why: str) -> None:
    with pytest.raises(UserError, match=why):
        METHODS.get(method)(**options).plan(
            create_backbone("test_resnet", 10, IMAGE), Budget(compression=0.5, macs_reduction=0.3)
        )


@pytest.mark.parametrize("form", ["matrix", "tucker"])
def test_products_of_a_layer_are_those_of_its_deployed_form(form: Convolution) -> None:
    conv = nn.Conv2d(24, 32, 3, stride=2, padding=1)
    model = nn.Sequential(conv)
    (layer,), (at,) = in_form(weight_layers(model), form), positions(model, (24, 16, 16)).values()
    assert at == (256, 64)
    folded = fold(factorize(model, {"0": 5}, convolution=form))
    assert layer.factorized_macs(5, at) == count_macs(folded, (24, 16, 16))


def test_a_layer_applied_twice_counts_twice() -> None:
    layer = nn.Linear(8, 8)
    assert count_macs(nn.Sequential(nn.Flatten(), layer, layer), (8, 1, 1)) == 128


def test_a_budget_says_one_thing() -> None:
    with pytest.raises(UserError, match="not both"):
        Budget(compression=0.5, rank_fraction=0.5)
    with pytest.raises(UserError, match="rank fraction"):
        Budget(rank_fraction=0)
    with pytest.raises(UserError, match="goes with a compression"):
        Budget(rank_fraction=0.2, macs_reduction=0.8)
    with pytest.raises(UserError, match="between 0 and 1"):
        Budget(compression=0.8, macs_reduction=8)
    with pytest.raises(UserError, match="dense"):
        METHODS.get("dense")().plan(nn.Identity(), Budget(compression=0.5))


def test_surgery_names_the_layer_it_cannot_do() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Linear(8, 8))
    with pytest.raises(UserError, match="'0' cannot be factorized: depthwise"):
        factorize(model, {"0": 1})
    with pytest.raises(UserError, match="unknown layer '2'"):
        factorize(model, {"2": 1})
    with pytest.raises(UserError, match=r"not in 1\.\.8"):
        factorize(model, {"1": 9})


def test_a_shared_layer_stays_shared() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    factorize(model, {"0": 2})
    assert model[0] is model[2]
    assert model(torch.ones(1, 8)).shape == (1, 8)


@pytest.mark.parametrize("tied", ["weight", "bias"])
def test_layers_that_share_a_parameter_stay_dense_and_tied(tied: str) -> None:
    model = nn.Sequential(nn.Linear(40, 32), *(nn.Linear(32, 32) for _ in range(4)), nn.Linear(32, 10))
    setattr(model[3], tied, getattr(model[1], tied))
    assert {x.name: x.obstacle for x in weight_layers(model) if x.obstacle} == {
        "1": f"shares its {tied} with 3",
        "3": f"shares its {tied} with 1",
    }
    with pytest.raises(UserError, match=f"'1' cannot be factorized: shares its {tied} with 3"):
        factorize(model, {"1": 2})
    ranks = METHODS.get("robust_lowrank")().plan(model, Budget(rank_fraction=0.5))
    assert ranks.keys() == {"0", "2", "4", "5"}
    factorize(model, ranks)
    assert getattr(model[3], tied) is getattr(model[1], tied)


def test_a_layer_that_shares_its_weight_with_an_embedding_stays_dense() -> None:
    model = nn.ModuleDict({"tokens": nn.Embedding(20, 16), "head": nn.Linear(16, 20)})
    model["head"].weight = model["tokens"].weight
    assert [x.obstacle for x in weight_layers(model)] == ["shares its weight with tokens"]


def test_macs_of_resnet18_at_224() -> None:
    """1.8 GMACs is the figure everybody quotes."""
    assert count_macs(timm.create_model("resnet18"), (3, 224, 224)) == pytest.approx(1.814e9, rel=1e-3)
