"""Channel pruning in a LightningModule that knows nothing else of zoo, and in the runs of zoo."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import onnx
import pytest
import torch
from rank_training import Plain, fit
from safetensors.torch import load_file

from zoo.backbone import create_backbone
from zoo.callbacks import ChannelPruning, ExponentialAverage, MaskSearch, OverfittingGuard
from zoo.channels import layer_report, prune_, trace_channels, widths
from zoo.channels.criteria import CRITERIA
from zoo.channels.width_selection import choose_widths
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.latency.session import OnnxModel
from zoo.lowrank.factorize import weight_layers
from zoo.methods.magnitude_prune import MagnitudePrune
from zoo.methods.mrs_prune import MrsPrune
from zoo.runs.run import Run
from zoo.runs.transfer import transferred_ranks
from zoo.runtime.complexity import count_params


class Watch(pl.Callback):
    """Keeps the number of parameters after each batch, and looks at the optimizer's state."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.sizes.append(count_params(pl_module))
        for p, state in trainer.optimizers[0].state.items():
            assert all(x.shape == p.shape for x in state.values() if torch.is_tensor(x) and x.ndim)


@pytest.mark.parametrize(("optimizer", "criterion"), [*(("sgd", x) for x in CRITERIA.names()), ("adam", "taylor")])
def test_cuts_meet_the_budget_and_everything_follows(criterion: str, optimizer: str) -> None:
    module, watch, average = Plain(optimizer), Watch(), ExponentialAverage(0.9)
    parameters, dense = set(map(id, module.parameters())), count_params(module)
    pruning = ChannelPruning(0.6, criterion, cuts=3, begin=0.1, end=0.5, window=3)
    fit(module, [pruning, watch, average])
    assert pruning.done
    assert [cut["step"] for cut in pruning.history] == [3, 10, 16]
    assert watch.sizes == sorted(watch.sizes, reverse=True)
    assert 0.6 <= 1 - watch.sizes[-1] / dense <= 0.62
    assert set(map(id, module.parameters())) == parameters
    assert widths(module) == pruning.history[-1]["ranks"]
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_an_optimizer_whose_state_cannot_follow_trains_on() -> None:
    module, pruning = Plain("adafactor"), ChannelPruning(0.6, cuts=2, begin=0.1, end=0.5)
    fit(module, [pruning])
    assert pruning.done
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_after_the_cut_everything_learns_or_only_normalisation_and_biases() -> None:
    for finetune in ("full", "norms"):
        module = Plain()
        found: dict[str, torch.Tensor] = {}

        class Remember(pl.Callback):
            def on_train_epoch_start(
                self, trainer: pl.Trainer, pl_module: pl.LightningModule, found: dict = found
            ) -> None:
                if trainer.current_epoch == 1:
                    found.update({k: v.clone() for k, v in pl_module.named_parameters()})

        fit(module, [ChannelPruning(0.5, begin=0.3, finetune=finetune), Remember()])
        for name, p in module.named_parameters():
            assert torch.equal(p, found[name]) == (finetune == "norms" and p.ndim > 1), name


def test_a_cut_before_the_first_step_needs_no_gradients() -> None:
    pruning = ChannelPruning(0.5, begin=0.0)
    fit(Plain(), [pruning])
    assert pruning.history[0]["step"] == 0
    with pytest.raises(UserError, match="begin"):
        fit(Plain(), [ChannelPruning(0.5, "taylor", begin=0.0)])


def test_the_momentum_after_a_cut_is_the_slice_of_the_one_before() -> None:
    module, before = Plain(), {}

    class Compare(ChannelPruning):
        def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, cuts: int) -> None:
            state, graph = trainer.optimizers[0].state, self.graph
            before.update({n: state[p]["momentum_buffer"].clone() for n, p in pl_module.named_parameters()})
            scores = self.scores(pl_module, graph)
            super()._cut(trainer, pl_module, cuts)
            keep = {g: torch.topk(scores[g], n).indices.sort()[0] for g, n in self.graph.sizes.items()}
            positions = graph.positions(keep)
            for name, p in pl_module.named_parameters():
                expected = before[name]
                for axis, index in positions.items():
                    if axis.tensor == name:
                        expected = expected.index_select(axis.dim, index)
                assert torch.equal(state[p]["momentum_buffer"], expected)

    fit(module, [Compare(0.5, begin=0.5)])
    assert before


ADVERSARIAL = MrsPrune(criterion="taylor", cuts=2, images=32, climb=2)


@pytest.mark.parametrize(("method", "adversary"), [(ADVERSARIAL, "pgd"), (MagnitudePrune(), "none")])
def test_a_run_keeps_its_promise_and_is_rebuilt_as_plain_narrow_layers(train_tiny, method, adversary: str) -> None:
    run: Run = train_tiny(method, epochs=2, compression=0.75, adversary=adversary, steps=1)
    card, model = run.card, run.model()
    assert 0.75 <= 1 - card.params / card.dense_params <= 0.77
    assert card.params == count_params(model)
    assert card.ranks == widths(model.get_submodule("backbone")) == card.training["cuts"][-1]["ranks"]
    assert card.macs < 0.5 * card.dense_macs
    assert any("outputs kept" in row.note and row.note[0].isdigit() for row in card.layers)


def test_the_exported_file_holds_narrow_convolutions(train_tiny) -> None:
    run: Run = train_tiny(MagnitudePrune(begin=0.0), compression=0.75)
    zoo(["export", str(run.folder), "--target", "generic"])
    held = onnx.load(run.folder / "model.onnx").graph.initializer
    shapes = Counter(tuple(x.dims) for x in held if len(x.dims) == 4 and math.prod(x.dims) > 1)
    convolutions = [m for m in run.model().modules() if isinstance(m, torch.nn.Conv2d)]
    assert Counter(tuple(m.weight.shape) for m in convolutions) == shapes
    assert sum(math.prod(x.dims) for x in held) <= 1.05 * run.card.params
    images = torch.rand(3, *run.card.image_shape)
    with torch.no_grad():
        expected = run.model()(images)
    found = OnnxModel(run.folder / "model.onnx", "cpu").logits(images.numpy())
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=1e-3, atol=1e-4)


def test_a_run_killed_after_a_cut_resumes_to_the_same_weights(train_tiny, dying_at, tmp_path: Path) -> None:
    """An epoch has 10 steps: the first checkpoint holds a network just cut, and gradients for the next cut."""
    recipe = {"method": ADVERSARIAL, "epochs": 3, "compression": 0.6, "ema": 0.9}
    whole = train_tiny(name="whole", **recipe)
    assert [cut["step"] for cut in whole.card.training["cuts"]] == [9, 18]
    with dying_at(14):
        train_tiny(name="killed", **recipe)
    zoo(["train", "--resume", str(tmp_path / "killed")])
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert Run(tmp_path / "killed").card.training["cuts"] == whole.card.training["cuts"]


@pytest.mark.slow
def test_an_epoch_that_is_taken_back_takes_its_cut_along(train_tiny, monkeypatch) -> None:
    found = iter([(0.9, 0.9), (0.1, 0.9), (0.9, 0.9)])
    monkeypatch.setattr(OverfittingGuard, "probe", lambda *_: next(found))
    run = train_tiny(MagnitudePrune(begin=0.5), epochs=3, compression=0.6, adversary="fgsm_rs", ema=0.9)
    assert 0.6 <= 1 - run.card.params / run.card.dense_params <= 0.62


def test_a_network_that_a_cut_has_weakened_is_left_to_recover(train_tiny, monkeypatch) -> None:
    found = iter([(0.9, 0.9), (0.1, 0.15), (0.3, 0.4)])
    monkeypatch.setattr(OverfittingGuard, "probe", lambda *_: next(found))
    run = train_tiny(MagnitudePrune(begin=0.5), epochs=3, compression=0.9, adversary="fgsm_rs", val_fraction=0.0)
    assert 0.9 <= 1 - run.card.params / run.card.dense_params <= 0.92
    assert "rolled_back" not in (run.folder / "metrics.csv").read_text()


def test_a_network_that_was_not_cut_as_asked_is_no_result(train_tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="before its last cut"):
        train_tiny(MagnitudePrune(begin=0.9), epochs=3, compression=0.5, trainer={"max_time": {"milliseconds": 1}})
    assert not (tmp_path / "run/card.json").exists()


@pytest.mark.slow
def test_pruning_starts_from_the_weights_of_a_dense_run(train_tiny, tmp_path: Path) -> None:
    train_tiny("dense", name="dense")
    run = train_tiny(MrsPrune(begin=0.0, images=16, climb=1), weights=tmp_path / "dense", lr=1e-9)
    dense, pruned = (load_file(tmp_path / x / "model.safetensors")["backbone.fc.bias"] for x in ("dense", "run"))
    torch.testing.assert_close(dense, pruned, rtol=0, atol=1e-6)
    assert run.card.training["cuts"][0]["step"] == 0


def test_a_step_that_overflows_is_not_gathered() -> None:
    module, pruning = Plain(), ChannelPruning(0.5, "taylor")
    pruning.graph, pruning._steps = trace_channels(module, module.image_shape), [0]
    found = []
    for scale in (1.0, float("inf")):
        module.zero_grad()
        (scale * module(torch.rand(2, 1, 8, 8)).square().sum()).backward()
        pruning.on_before_optimizer_step(SimpleNamespace(global_step=0, lightning_module=module), module, None)
        found.append(dict(pruning.gathered))
    assert all(torch.equal(found[1][group], value) and value.sum() > 0 for group, value in found[0].items())


@pytest.mark.parametrize("classes", [200, 300, 10])
def test_a_pruned_network_is_taken_over_with_more_classes_than_features(classes: int) -> None:
    start = create_backbone("test_resnet", 200, (3, 32, 32))
    layers, total = weight_layers(start), count_params(start)
    assert layers[-1].m < 200
    graph = trace_channels(start)
    chosen = choose_widths(graph, graph.sizes, 0.5 * total, total)
    prune_(start, graph, {g: torch.arange(n) for g, n in chosen.items()})
    run = SimpleNamespace(card=SimpleNamespace(layers=layer_report(layers, widths(start)), ranks=widths(start)))
    model = create_backbone("test_resnet", classes, (3, 32, 32))
    taken = MagnitudePrune().convert(model, transferred_ranks(run, model))
    assert widths(taken) == widths(start) | {"fc": classes}


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        (MagnitudePrune(), {"rank_fraction": 0.5}, "compression"),
        (MagnitudePrune(), {"compression": 0.9999}, "budget"),
        (MrsPrune(), {"val_fraction": 0.0}, "val-fraction"),
    ],
)
def test_what_cannot_be_pruned_is_refused(train_tiny, method, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        train_tiny(method, **changes)


@pytest.mark.parametrize(
    "options",
    [{"compression": 0.0}, {"compression": 0.5, "cuts": 0}, {"compression": 0.5, "criterion": "l3"},
     {"compression": 0.5, "begin": 1.0}, {"compression": 0.5, "cuts": 2, "begin": 0.6, "end": 0.5},
     {"compression": 0.5, "finetune": "some"}],
)  # fmt: skip
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(UserError):
        ChannelPruning(**options)


@pytest.mark.parametrize(
    "options", [{"sensitivity_range": 0.0}, {"cuts": 0}, {"begin": 1.0}, {"begin": 0.0, "criterion": "taylor"}]
)
def test_impossible_hyper_parameters_are_refused(options: dict) -> None:
    with pytest.raises(UserError):
        MrsPrune(**options)


@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_a_frozen_group_keeps_its_width_and_the_others_make_up_for_it(criterion: str) -> None:
    module, pruning = Plain(), ChannelPruning(0.5, criterion, cuts=2, begin=0.1, end=0.5, window=3)
    module.net[3].first.requires_grad_(False)
    module.net[3].norm.requires_grad_(False)
    dense = count_params(module)
    fit(module, [pruning])
    assert widths(module)["net.3.first"] == 64
    assert 0.5 <= 1 - count_params(module) / dense <= 0.55


def test_a_frozen_group_is_not_masked() -> None:
    module, search = Plain(), MaskSearch(0.5, begin=0.5)
    module.net[3].first.requires_grad_(False)
    module.net[3].norm.requires_grad_(False)
    fit(module, [search])
    assert search.done
    assert widths(module)["net.3.first"] == 64


def test_a_group_that_gets_no_gradient_keeps_its_width() -> None:
    """As behind a branch that the loss does not look at."""

    class Cut(Plain):
        def training_step(self, batch, batch_idx):
            block = self.net[3]
            x = self.net[:3](batch[0])
            hidden = block.norm(block.first(x)).relu().detach()
            return torch.nn.functional.cross_entropy(self.net[4:](x + block.second(hidden)), batch[1])

    module = Cut()
    fit(module, [ChannelPruning(0.5, "taylor", begin=0.5, window=3)])
    assert widths(module)["net.3.first"] == 64
    assert widths(module)["net.0"] < 32


def test_a_network_of_which_too_much_is_frozen_is_refused_before_the_first_step() -> None:
    module = Plain()
    module.net[:3].requires_grad_(False)
    module.net[3].requires_grad_(False)
    with pytest.raises(UserError, match="stays: it is frozen"):
        fit(module, [ChannelPruning(0.5, "taylor")])
