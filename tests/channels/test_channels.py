"""Channels of real networks: cutting dead ones changes nothing, widths rebuild, budgets are met."""

import copy

import pytest
import torch
from small_networks import IMAGE, network, shaken
from torch import nn

from zoo.channels import Axis, build_widths, prune_, trace_channels, widths
from zoo.channels.criteria import CRITERIA
from zoo.channels.graph import ParameterCount
from zoo.channels.width_selection import choose_widths
from zoo.errors import UserError
from zoo.runtime.complexity import count_params
from zoo.sensitivity.criticality import ratio_offsets

FAMILIES = ["test_resnet", "test_byobnet", "test_efficientnet", "test_vit", "test_convnext", "densenet"]


def kill(model: nn.Module, graph, dead: dict[str, torch.Tensor]) -> None:
    """Make channels exactly zero: whatever computes or scales them has zeros there."""
    stays = {g: torch.tensor([i for i in range(n) if i not in set(dead[g].tolist())]) for g, n in graph.sizes.items()}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for (name, dim), index in graph.positions(stays).items():
        read = any(name == f"{layer}.weight" and dim == 1 for of in graph.consumers.values() for layer in of)
        if not read and not name.endswith(("running_mean", "running_var")):
            gone = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
            gone[index] = False
            tensors[name].data[gone] = 0


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "densenet"])
def test_cutting_channels_that_are_zero_leaves_the_answers_as_they_are(name: str) -> None:
    model = shaken(network(name)).double()
    graph = trace_channels(model, IMAGE)
    dead = {group: torch.randperm(size)[: size // 3] for group, size in graph.sizes.items()}
    kill(model, graph, dead)
    x = torch.rand(4, *IMAGE, dtype=torch.float64)
    with torch.no_grad():
        before = model(x)
        keep = {g: torch.tensor([i for i in range(n) if i not in dead[g]]) for g, n in graph.sizes.items()}
        prune_(model, graph, keep)
        torch.testing.assert_close(model(x), before, rtol=1e-9, atol=1e-9)
    assert before.std() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_meets_its_budget_runs_learns_and_is_rebuilt(name: str) -> None:
    model = network(name)
    total, graph = count_params(model), trace_channels(model, IMAGE)
    chosen = choose_widths(graph, graph.sizes, 0.25 * total, total)
    pruned = copy.deepcopy(model)
    left = prune_(pruned, graph, {g: torch.randperm(graph.sizes[g])[:n] for g, n in chosen.items()})
    assert 0.75 <= 1 - count_params(pruned) / total <= 0.77
    assert count_params(pruned) == ParameterCount(graph)(chosen) == ParameterCount(left)(left.sizes)
    assert left.sizes == trace_channels(pruned, IMAGE).sizes == chosen
    pruned.train()(torch.rand(2, *IMAGE)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters())
    again = build_widths(network(name), graph, widths(pruned))
    again.load_state_dict(pruned.state_dict())
    x = torch.rand(2, *IMAGE)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), pruned.eval()(x))
    for module in pruned.modules():
        if isinstance(module, nn.Conv2d):
            shape = (module.out_channels, module.in_channels // module.groups)
            assert module.weight.shape[:2] == shape


def test_what_is_kept_are_the_chosen_rows() -> None:
    model = network("test_resnet")
    graph = trace_channels(model)
    before = model.get_parameter("layer1.0.conv1.weight").detach().clone()
    prune_(model, graph, {"layer1.0.conv1": torch.tensor([1, 5])})
    torch.testing.assert_close(model.get_parameter("layer1.0.conv1.weight").detach(), before[[1, 5]])


def test_parameters_stay_the_same_objects_and_momenta_are_sliced_along() -> None:
    model = network("test_efficientnet").train()
    reference = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, reference)]
    for m, optimizer in zip((model, reference), optimizers, strict=True):
        torch.manual_seed(0)
        m(torch.rand(4, *IMAGE)).square().sum().backward()
        optimizer.step()
    objects = list(map(id, model.parameters()))
    graph = trace_channels(model)
    keep = {g: torch.arange(0, n, 2) for g, n in graph.sizes.items()}
    positions = graph.positions(keep)
    prune_(model, graph, keep, [optimizers[0]])
    assert list(map(id, model.parameters())) == objects
    for (name, p), whole in zip(model.named_parameters(), reference.parameters(), strict=True):
        expected = optimizers[1].state[whole]["momentum_buffer"]
        for dim in range(whole.ndim):
            if Axis(name, dim) in positions:
                expected = expected.index_select(dim, positions[Axis(name, dim)])
        assert torch.equal(optimizers[0].state[p]["momentum_buffer"], expected)


def test_the_classes_the_images_and_attention_stay() -> None:
    model = network("test_vit")
    graph = trace_channels(model)
    assert graph.obstacles["head"] == "its outputs are the network's"
    assert "attention" in graph.obstacles["blocks.0.attn.qkv"]
    prune_(model, graph, {group: torch.arange(4) for group in graph.sizes})
    assert model(torch.rand(2, *IMAGE)).shape == (2, 10)


def test_protected_layers_stay() -> None:
    graph = trace_channels(network("test_resnet"), protect={"layer1.0.conv1"})
    assert graph.obstacles["layer1.0.conv1"] == "layer1.0.conv1 is protected"
    assert "layer1.0.conv1" not in graph.sizes


class Odd(nn.Module):
    """Two halves of a layer's outputs meet: channel i cannot go without channel i + 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.first(x).chunk(2, 1)
        return self.last((a * b).mean((2, 3)))


class Rigid(nn.Module):
    """The second layer's width is written into the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)
        self.last = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x)).view(len(x), 6, 32, 32)
        return self.last(self.third(x).mean((2, 3)))


def test_a_layer_whose_width_the_forward_pass_knows_is_left_alone() -> None:
    model = Rigid()
    graph = trace_channels(model, IMAGE)
    assert graph.sizes == {"first": 8, "third": 4}
    assert "fails" in graph.obstacles["second"]
    left = prune_(model, graph, {"third": torch.tensor([0, 3])})
    assert model.last.in_features == 2
    assert ParameterCount(left)(left.sizes) == count_params(model)
    assert model(torch.rand(2, *IMAGE)).shape == (2, 10)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).mean((2, 3)).detach().numpy())


def test_channels_of_layers_that_share_a_weight_stay() -> None:
    layers = [nn.Conv2d(3, 8, 1), *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)), nn.Conv2d(8, 16, 1)]
    layers[2].weight = layers[1].weight
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    graph = trace_channels(model, IMAGE)
    assert graph.sizes == {"3": 16}
    assert all("shares its weight with" in graph.obstacles[name] for name in ("0", "1", "2"))
    total = count_params(model)
    chosen = choose_widths(graph, graph.sizes, 0.9 * total, total)
    prune_(model, graph, {group: torch.arange(n) for group, n in chosen.items()})
    assert count_params(model) == ParameterCount(graph)(chosen) <= 0.9 * total
    assert model[1].weight is model[2].weight
    assert model(torch.rand(2, *IMAGE)).shape == (2, 10)


@pytest.mark.parametrize(("model", "said"), [(Odd(), "'?first"), (Untraceable(), "'last'")])
def test_what_cannot_be_traced_is_refused_by_the_layer_s_name(model: nn.Module, said: str) -> None:
    with pytest.raises(UserError, match=said):
        trace_channels(model, IMAGE)


def test_impossible_widths_and_budgets_are_refused() -> None:
    model = network("test_resnet")
    graph = trace_channels(model)
    for wanted, said in [
        ({"layer1.0.conv9": 4}, "did you mean"),
        ({"layer1.0.conv1": 0}, "cannot have 0"),
        ({"layer1.0.conv1": 999}, "cannot have 999"),
        ({"fc": 4}, "outputs are the network's"),
    ]:
        with pytest.raises(UserError, match=said):
            build_widths(copy.deepcopy(model), graph, wanted)
    total = count_params(model)
    with pytest.raises(UserError, match="budget"):
        choose_widths(graph, graph.sizes, 100, total)
    with pytest.raises(UserError, match="image_shape"):
        trace_channels(nn.Linear(3, 3))


@pytest.mark.parametrize("compression", [0.5, 0.75, 0.9])
def test_sensitive_groups_keep_more_at_the_same_budget(compression: float) -> None:
    model = network("test_byobnet")
    total, graph = count_params(model), trace_channels(model)
    sensitive = sorted(graph.sizes, key=lambda g: graph.sizes[g])[-1]
    found = ratio_offsets({group: 5.0 if group == sensitive else 0.1 for group in graph.sizes})
    assert abs(sum(found.values())) < 1e-9
    uniform = choose_widths(graph, graph.sizes, (1 - compression) * total, total)
    adaptive = choose_widths(graph, graph.sizes, (1 - compression) * total, total, found)
    assert adaptive[sensitive] > uniform[sensitive]
    assert all(0 <= (1 - compression) - ParameterCount(graph)(w) / total <= 0.02 for w in (uniform, adaptive))


def test_equal_sensitivities_give_no_offsets() -> None:
    assert set(ratio_offsets({"a": 1.0, "b": 1.0}).values()) == {0.0}


@pytest.mark.parametrize("name", CRITERIA.names())
def test_a_criterion_finds_the_channels_that_do_nothing(name: str) -> None:
    model = shaken(network("test_resnet")).train()
    graph = trace_channels(model)
    dead = {group: torch.arange(size // 4) for group, size in graph.sizes.items()}
    kill(model, graph, dead)
    criterion = CRITERIA.get(name)()
    model(torch.rand(8, *IMAGE)).square().sum().backward()
    gathered = criterion.observe(model, graph)
    scores = criterion.scores(model, graph, gathered)
    assert {group: len(x) for group, x in scores.items()} == graph.sizes
    if name != "random":
        for group, score in scores.items():
            assert score[dead[group]].max() <= score.min()
            assert score.max() > score[dead[group]].max()


def test_lamp_ranks_as_l2_where_a_group_is_one_layer() -> None:
    model = network("test_resnet")
    graph = trace_channels(model)
    one = [g for g in graph.sizes if len(graph.producers[g]) == 1]
    l2, lamp = (CRITERIA.get(name)().scores(model, graph, {}) for name in ("l2", "lamp"))
    assert one
    assert all(torch.equal(l2[g].argsort(), lamp[g].argsort()) for g in one)
