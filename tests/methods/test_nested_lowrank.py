"""One training for every compression: what a step trains, what its prefixes keep, and what is refused."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from zoo.adversaries.mart import Mart
from zoo.adversaries.pgd import PGDAdversary
from zoo.backbone import create_backbone
from zoo.budget import Budget
from zoo.cli import run as zoo
from zoo.constraints import LowRankConstraint
from zoo.errors import UserError
from zoo.lowrank.factorize import fold, weight_layers
from zoo.lowrank.layers import factorized_layers
from zoo.lowrank.nested_ranks import compression_at, nested_ranks
from zoo.lowrank.prefix import cut_
from zoo.lowrank.sizes import size_applied, sizes_of
from zoo.methods.nested_lowrank import NestedLowrank
from zoo.post_training.rift import Rift
from zoo.runtime.batch_norm import load_running_statistics_, running_statistics
from zoo.runtime.complexity import count_params
from zoo.training.parts import Parts

IMAGE = (3, 32, 32)


def network(method: NestedLowrank | None = None, arch: str = "test_resnet") -> nn.Module:
    method, dense = method or NestedLowrank(), create_backbone(arch, 10, IMAGE)
    return method.convert(dense, method.plan(dense, None))


@pytest.mark.parametrize("convolution", ["matrix", "tucker"])
def test_every_size_keeps_its_promise_inside_the_next_larger_one(convolution: str) -> None:
    model = network(NestedLowrank(convolution=convolution))
    total = count_params(create_backbone("test_resnet", 10, IMAGE))
    sizes, larger = sizes_of(model)[1], {name: layer.rank for name, layer in factorized_layers(model)}
    assert sizes.compressions[0] == 0.55
    for compression, ranks in zip(sizes.compressions, sizes.ranks, strict=True):
        smaller = fold(cut_(copy.deepcopy(model), ranks))
        assert 1 - count_params(smaller) / total >= compression
        assert all(rank <= larger[name] for name, rank in ranks.items())
        larger |= ranks


def test_layers_keep_the_proportions_of_the_largest_network() -> None:
    """A budget of multiply-accumulates starves large maps; the smaller networks inherit that."""
    dense = create_backbone("resnet18", 10, IMAGE)
    method = NestedLowrank(convolution="tucker")
    ranks = method.plan(dense, Budget(compression=0.75, macs_reduction=0.84))
    sizes = method.sizes(dense, ranks)
    assert [*sizes] == [0.8, 0.85, 0.9, 0.95]
    equal = method.sizes(dense, method.plan(dense, Budget(compression=0.75)))
    early, late = ([name for name in ranks if name.startswith(part)] for part in (("layer1", "layer2"), "layer4"))
    for c in sizes:
        assert sum(sizes[c][name] for name in early) < sum(equal[c][name] for name in early)
        assert sum(sizes[c][name] for name in late) > sum(equal[c][name] for name in late)
    layers = [x for x in weight_layers(dense) if x.name in ranks]
    assert compression_at(layers, count_params(dense), nested_ranks(layers, count_params(dense), ranks, 0.9)) >= 0.9


def test_a_size_in_training_is_what_its_cut_is() -> None:
    model, x = network(), torch.rand(8, *IMAGE)
    with torch.no_grad():
        for i in (0, len(sizes_of(model)[1]) - 1):
            with size_applied(model.train(), i):
                model(x)
    backbone, sizes = sizes_of(model.eval())
    last = len(sizes) - 1
    with size_applied(model, last):
        applied = model(x)
    own = running_statistics(backbone)
    cut_(backbone, sizes.ranks[last])
    load_running_statistics_(backbone, *sizes.statistics(last))
    torch.testing.assert_close(model(x), applied)
    assert not torch.equal(own[0], sizes.statistics(last)[0])
    torch.testing.assert_close(fold(model)(x), applied, rtol=1e-3, atol=1e-4)


def test_a_pass_updates_the_statistics_of_its_size_alone() -> None:
    model = network().train()
    backbone, sizes = sizes_of(model)
    before = [running_statistics(backbone), *(tuple(x.clone() for x in sizes.statistics(i)) for i in range(len(sizes)))]
    with size_applied(model, 1):
        model(torch.rand(8, *IMAGE))
    after = [running_statistics(backbone), *(sizes.statistics(i) for i in range(len(sizes)))]
    changed = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if not torch.equal(old[0], new[0])]
    assert changed == [2]


def test_a_step_trains_the_largest_the_smallest_and_one_between() -> None:
    model, method, seen = network().train(), NestedLowrank(), []
    sizes = sizes_of(model)[1]

    def objective(model, images, labels, soft_targets=None):
        logits = model(images)
        seen.append((soft_targets, logits.detach()))
        return {"loss": logits.square().mean(), "logits": logits.detach()}

    with method.searched_on(model):
        pass
    assert sizes.drawn[0] == len(sizes) - 1
    assert len(set(sizes.drawn)) == 2
    result = method.loss(model, torch.rand(4, *IMAGE), torch.arange(4), objective)
    targets = [target for target, _ in seen]
    assert targets[0] is None
    assert torch.equal(targets[1], targets[2])
    torch.testing.assert_close(targets[1].sum(1), torch.ones(4))
    assert torch.equal(result["logits"], seen[0][1])
    largest, *smaller = (logits.square().mean() for _, logits in seen)
    torch.testing.assert_close(result["loss"], largest + sum(smaller) / 2)


def test_the_search_meets_each_network_of_the_step() -> None:
    model, method, x = network().eval(), NestedLowrank(between=0), torch.rand(2, *IMAGE)
    answers = set()
    for _ in range(12):
        with method.searched_on(model), torch.no_grad():
            answers.add(round(model(x).double().sum().item(), 5))
    assert len(answers) == 2


def test_training_keeps_every_prefix_well_conditioned(train_tiny) -> None:
    run = train_tiny(NestedLowrank(tau=0.5), lr=0.05)
    trained = run.trained_model()
    backbone, sizes = sizes_of(trained)
    assert run.card.max_condition_number <= 1.5 + 1e-4
    assert LowRankConstraint(0.5).in_set(backbone)
    cut_(backbone, sizes.ranks[len(sizes) // 2])
    assert LowRankConstraint(0.5).in_set(backbone)
    assert not torch.equal(sizes.statistics(0)[0], running_statistics(backbone)[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [({"smallest": 1.0}, "smallest 1.0"), ({"step": 0.0}, "step 0.0"), ({"between": -1}, "between -1")],
)
def test_impossible_options_are_refused(options: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        NestedLowrank(**options)


def test_what_does_not_go_together_is_refused(train_tiny) -> None:
    with pytest.raises(UserError, match="mart, whose loss needs labels"):
        Parts(NestedLowrank(), Mart())
    with pytest.raises(UserError, match="--finish rift does not go with --method nested_lowrank"):
        Parts(NestedLowrank(), PGDAdversary(), finisher=Rift())
    with pytest.raises(UserError, match="--compile true does not go with nested_lowrank"):
        train_tiny("nested_lowrank", compile=True)
    dense = create_backbone("test_resnet", 10, IMAGE)
    with pytest.raises(UserError, match=r"removes 80.* already, the smallest is to remove 60\.0%"):
        NestedLowrank(smallest=0.6).plan(dense, Budget(compression=0.8))
    with pytest.raises(UserError, match="one size only: train it with --method nested_lowrank"):
        sizes_of(dense)


def test_a_killed_training_goes_on_to_the_same_bits(train_tiny, dying_at, tmp_path: Path) -> None:
    """With everything that the recipe of CIFAR-10 has: Tucker-2, an adversary, averaged weights, balanced layers."""
    method = NestedLowrank(tau=1.0, convolution="tucker", step=0.3)
    recipe = {"epochs": 2, "adversary": "n_fgsm", "ema": 0.9, "balance": True, "label_smoothing": 0.4, "eps": "0.05"}
    recipe["trainer"] = {"limit_train_batches": 3}
    whole = train_tiny(method, "whole", **recipe)
    with dying_at(whole.card.training["steps"] - 1):
        train_tiny(method, "killed", **recipe)
    zoo(["train", "--resume", str(tmp_path / "killed")])
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert whole.card.max_condition_number <= 2 + 1e-4
