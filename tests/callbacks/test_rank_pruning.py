"""Rank pruning in a LightningModule that knows nothing else of zoo, and in the runs of zoo."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from rank_training import Digits, fit
from safetensors.torch import load_file
from torch import nn

from zoo.callbacks import (
    DynamicalLowRank,
    ExponentialAverage,
    OrthonormalRetraction,
    OverfittingGuard,
    RankPruning,
    SpectrumClamp,
)
from zoo.callbacks._sensitivity import Sensitivity
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.linalg import orthonormality_error
from zoo.lowrank.allocation import deployed_size
from zoo.lowrank.factorize import fold
from zoo.lowrank.layers import FactorizedLinear, factorized_layers
from zoo.methods.rank_adaptive import RankAdaptive
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.methods.robust_rank_adaptive import RobustRankAdaptive
from zoo.runs.run import Run
from zoo.screen import quieted


class Watch(pl.Callback):
    """Keeps the ranks, the parameters' shapes and those of their momenta after each batch."""

    def __init__(self) -> None:
        self.ranks: list[dict[str, int]] = []
        self.orthonormality: list[float] = []
        self.condition: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        layers = dict(factorized_layers(pl_module))
        self.ranks.append({name: layer.rank for name, layer in layers.items()})
        for optimizer in trainer.optimizers:
            for p, state in optimizer.state.items():
                assert all(x.shape == p.shape for x in state.values() if torch.is_tensor(x) and x.ndim)
        for layer in layers.values():
            self.orthonormality += [float(orthonormality_error(x.detach())) for x in (layer.U, layer.V)]
            self.condition.append(float(torch.linalg.cond(layer.S.detach().double())))


@pytest.mark.parametrize("saliency", ["spectrum", "gradient", "second_order"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_ranks_only_fall_and_meet_the_target_under_the_constraints(saliency: str, optimizer: str) -> None:
    module, watch = Digits(optimizer), Watch()
    pruning = RankPruning(0.6, saliency=saliency, cuts=4, window=3)
    parameters = set(map(id, module.parameters()))
    dense = deployed_size(module).dense
    fit(module, [pruning, OrthonormalRetraction(), SpectrumClamp(0.1), watch])
    assert set(map(id, module.parameters())) == parameters
    assert all(b[name] <= a[name] for a, b in pairwise(watch.ranks) for name in a)
    assert pruning.done
    assert len(pruning.history) == 4
    left = sum(p.numel() for p in fold(module).parameters())
    assert 0.6 <= 1 - left / dense <= 0.62
    assert max(watch.orthonormality) <= 1e-5
    assert max(watch.condition) <= 1.1


def test_every_parameter_still_learns_after_the_last_cut() -> None:
    module = Digits()
    found: dict[str, torch.Tensor] = {}

    class Remember(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                assert pruning.done
                found.update({k: v.clone() for k, v in pl_module.named_parameters()})

    pruning = RankPruning(0.5, cuts=2, begin=0.1, end=0.4)
    fit(module, [pruning, Remember()])
    assert all(p.shape == found[k].shape and not torch.equal(p, found[k]) for k, p in module.named_parameters())


def test_parameters_fall_along_a_cubic_and_steps_with_them() -> None:
    module, pruning = Digits(), RankPruning(0.6, cuts=4, begin=0.0, end=0.8, saliency="spectrum")
    start = deployed_size(module)
    fit(module, [pruning])
    target = 0.4 * start.dense - start.rest
    shapes = {name: layer.weight_shape for name, layer in factorized_layers(module)}
    for k, cut in enumerate(pruning.history[:-1], 1):
        held = sum(r * (shapes[x][0] + shapes[x].numel() // shapes[x][0]) for x, r in cut["ranks"].items())
        wanted = target + (start.factors - target) * (1 - k / 4) ** 3
        assert wanted <= held <= wanted + 16 * (576 + 64)  # steps of 16 ranks; at most one of the largest is missing
    assert [cut["step"] for cut in pruning.history] == [6, 13, 19, 26]


@pytest.mark.parametrize(
    ("saliency", "unused"),
    [(x, False) for x in ("spectrum", "gradient", "second_order")] + [("gradient", True), ("second_order", True)],
)
def test_a_layer_that_does_not_train_keeps_its_rank_and_the_others_make_up_for_it(saliency: str, unused: bool) -> None:
    module = Digits()
    spare = FactorizedLinear(nn.Linear(64, 48), 20)
    module.spare = spare
    if not unused:
        module.net[-1] = nn.Sequential(spare, nn.Linear(48, 10))
        for p in (spare.U, spare.S, spare.V):
            p.requires_grad_(False)
    dense = deployed_size(module).dense
    fit(module, [RankPruning(0.5, cuts=3, saliency=saliency)])
    assert spare.rank == 20
    assert sum(p.numel() for p in fold(module).parameters()) <= 0.5 * dense


def test_a_budget_is_not_missed_in_silence_where_no_layer_gets_a_gradient() -> None:
    class Detached(Digits):
        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
            return self.net[-1].bias.square().sum()

    with pytest.raises(UserError, match="got a gradient"):
        fit(Detached(), [RankPruning(0.5, cuts=2, saliency="gradient")])


def test_a_tolerance_cuts_what_the_weight_does_not_need() -> None:
    module = Digits()
    before: dict[str, torch.Tensor] = {}
    errors: list[float] = []

    class Compare(RankPruning):
        def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, cuts: int) -> None:
            before.update({k: x.weight.detach().clone() for k, x in factorized_layers(pl_module)})
            super()._cut(trainer, pl_module, cuts)
            errors.extend(
                float((x.weight.detach() - before[k]).norm() / before[k].norm())
                for k, x in factorized_layers(pl_module)
            )

    pruning = Compare(tolerance=0.5, saliency="spectrum", cuts=1, end=0.5)
    fit(module, [pruning])
    assert max(errors) <= 0.5
    assert max(errors) > 0.1


def test_the_constraints_hold_right_after_a_cut() -> None:
    seen: list[float] = []

    class Check(RankPruning):
        def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, cuts: int) -> None:
            super()._cut(trainer, pl_module, cuts)
            for _, layer in factorized_layers(pl_module):
                seen.extend(float(orthonormality_error(x.detach())) for x in (layer.U, layer.V))
                assert torch.linalg.cond(layer.S.detach()) <= 1.1

    fit(Digits(), [Check(0.6, cuts=3), OrthonormalRetraction(), SpectrumClamp(0.1)])
    assert max(seen) <= 1e-5


def test_under_accumulation_cuts_fall_between_steps() -> None:
    pruning = RankPruning(0.6, cuts=3, window=2)
    trainer = fit(Digits(), [pruning, OrthonormalRetraction()], accumulate_grad_batches=3)
    assert pruning.done
    assert trainer.global_step == 12


def test_the_average_of_the_weights_is_cut_along() -> None:
    module, average = Digits(), ExponentialAverage(0.9)
    fit(module, [RankPruning(0.6, cuts=3), OrthonormalRetraction(), SpectrumClamp(0.1), average])
    left = sum(p.numel() for p in fold(module).parameters())
    assert left / deployed_size(module).dense <= 0.4
    assert all(orthonormality_error(x.U.detach()) <= 1e-5 for _, x in factorized_layers(module))


def test_an_average_recovers_from_a_cut_as_the_weights_do() -> None:
    """An average that holds the weights themselves is the same as they are after the cut."""
    average = WeightAveraging(avg_fn=lambda mean, value, _: value)
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Compare(RankPruning):
        def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, cuts: int) -> None:
            super()._cut(trainer, pl_module, cuts)
            for name, layer in factorized_layers(pl_module):
                copy = average._average_model.module.get_submodule(name)
                pairs.append((layer.weight.detach().clone(), copy.weight.detach().clone()))

    fit(Digits(), [Compare(0.6, cuts=2, saliency="second_order"), average])
    assert len(pairs) == 6
    for weight, copy in pairs:
        torch.testing.assert_close(copy, weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer", [lambda p: torch.optim.Rprop(p), lambda p: torch.optim.ASGD(p)], ids=["Rprop", "ASGD"]
)
@pytest.mark.parametrize("kind", [RankPruning, DynamicalLowRank])
def test_an_optimizer_that_cannot_follow_is_refused_after_the_first_steps(optimizer, kind: type) -> None:
    module, steps = Digits(), []

    class Count(pl.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            steps.append(1)

    module.configure_optimizers = lambda: optimizer(module.parameters())
    with pytest.raises(UserError, match="cannot follow a change of ranks"):
        fit(module, [kind(0.6), Count()])
    assert len(steps) <= 2


@pytest.mark.parametrize(
    "kind", ["pruning", *(pytest.param(x, marks=pytest.mark.slow) for x in ("dynamical", "channels"))]
)
def test_two_processes_end_with_equal_ranks_and_weights(tmp_path: Path, kind: str) -> None:
    script = Path(__file__).parents[1] / "rank_training.py"
    subprocess.run([sys.executable, str(script), str(tmp_path), kind], check=True, capture_output=True, timeout=300)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert len(one["history"]) >= 3
    assert one["history"] == two["history"]
    assert one["ranks"] == two["ranks"]
    assert all(torch.equal(value, two["weights"][name]) for name, value in one["weights"].items())


class Known(Sensitivity):
    """Says that one layer is more sensitive than the others, and counts how often it is asked."""

    def __init__(self, most: str) -> None:
        self.most, self.asked = most, 0

    def measure(self, pl_module: pl.LightningModule, parts: dict[str, list[nn.Parameter]]) -> dict[str, float]:
        self.asked += 1
        assert all(part == [pl_module.get_parameter(f"{name}.S")] for name, part in parts.items())
        return {name: 5.0 if name == self.most else 0.1 for name in parts}


def test_sensitive_layers_keep_more_rank_at_the_same_budget() -> None:
    ranks: dict[str | None, dict[str, int]] = {}
    for most in (None, "net.2", "net.4", "net.6"):
        module, known = Digits(), Known(most or "")
        fit(module, [RankPruning(0.7, cuts=3, window=2, sensitivity=known), OrthonormalRetraction()])
        left = sum(p.numel() for p in fold(module).parameters()) / deployed_size(module).dense
        assert 0.7 <= 1 - left <= 0.72
        assert known.asked == 1
        ranks[most] = {name: layer.rank for name, layer in factorized_layers(module)}
    for most in ("net.2", "net.4", "net.6"):
        assert ranks[most][most] > ranks[None][most]
        assert sum(ranks[most][name] < ranks[None][name] for name in ranks[most]) >= 1


ADAPTIVE = RobustLowrank(rank_budget="adaptive")
BY_SENSITIVITY = RobustLowrank(rank_budget="adaptive", allocation="sensitivity", sensitivity_range=0.8)


@pytest.mark.parametrize(("method", "adversary"), [(ADAPTIVE, "pgd"), (RobustRankAdaptive(), "none")])
def test_a_run_with_adaptive_ranks_keeps_its_promise_and_can_be_rebuilt(train_tiny, method, adversary: str) -> None:
    run: Run = train_tiny(method, epochs=4, compression=0.6, adversary=adversary, steps=1)
    card = run.card
    assert 0.6 <= 1 - card.params / card.dense_params <= 0.62
    assert card.params == sum(p.numel() for p in run.model().parameters())
    assert card.ranks == {k.removeprefix("backbone."): x.rank for k, x in factorized_layers(run.trained_model())}
    assert card.training["cuts"][-1]["ranks"].items() <= card.ranks.items()


def test_a_run_measures_the_sensitivities_that_its_ranks_follow(train_tiny) -> None:
    run: Run = train_tiny(BY_SENSITIVITY, epochs=3, compression=0.6, adversary="fgsm_rs")
    first, *later = run.card.training["cuts"]
    measured, ended = first["sensitivity"], run.card.training["cuts"][-1]["ranks"]
    assert measured.keys() == ended.keys() <= run.card.ranks.keys()
    assert not any("sensitivity" in cut for cut in later)
    sides = {x.name: (x.shape[0], math.prod(x.shape[1:])) for x in run.card.layers}
    size = {name: n * m / (n + m) for name, (n, m) in sides.items()}  # rank at which factors hold as much as the weight
    order = sorted(measured, key=lambda name: measured[name])
    shares = [ended[name] / size[name] for name in order]
    assert min(measured.values()) >= 0
    assert sum(shares[-2:]) > sum(shares[:2])
    assert 0.6 <= 1 - run.card.params / run.card.dense_params <= 0.62


@pytest.mark.parametrize(
    ("method", "kill_at"),
    [(ADAPTIVE, 12), pytest.param(BY_SENSITIVITY, 13, marks=pytest.mark.slow), (RankAdaptive(), 13)],
)
def test_a_run_killed_after_a_cut_resumes_to_the_same_weights(
    train_tiny, dying_at, tmp_path: Path, method, kill_at: int
) -> None:
    """An epoch has ten steps: the checkpoints hold gathered gradients, or are in the middle of a cycle."""
    recipe = {"method": method, "epochs": 3, "compression": 0.6, "ema": 0.9}
    whole = train_tiny(name="whole", **recipe)
    with dying_at(kill_at):
        train_tiny(name="killed", **recipe)
    zoo(["train", "--resume", str(tmp_path / "killed")])
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert Run(tmp_path / "killed").card.training["cuts"] == whole.card.training["cuts"]


@pytest.mark.parametrize("method", [ADAPTIVE, RankAdaptive()])
def test_an_epoch_that_is_taken_back_takes_its_cuts_along(train_tiny, monkeypatch, method) -> None:
    found = iter([(0.9, 0.9), (0.1, 0.9), (0.9, 0.9)])
    monkeypatch.setattr(OverfittingGuard, "probe", lambda *_: next(found))
    run = train_tiny(method, epochs=3, compression=0.6, adversary="fgsm_rs", ema=0.9)
    assert 0.6 <= 1 - run.card.params / run.card.dense_params <= 0.62


@pytest.mark.parametrize("saliency", ["gradient", "second_order"])
def test_a_step_that_overflows_is_not_gathered(saliency: str) -> None:
    """An fp16 gradient scaler skips it too, whatever its gradients are."""
    module, pruning = Digits(), RankPruning(0.6, saliency=saliency)
    layers = dict(factorized_layers(module))
    pruning.gathered = {name: {"steps": torch.zeros(())} for name in layers}
    found = []
    for scale in (1.0, float("inf"), 1.0):
        module.zero_grad()
        (scale * module.net(torch.ones(2, 1, 8, 8)).square().sum()).backward()
        pruning.on_before_optimizer_step(None, module, module.configure_optimizers())
        found.append({name: pruning.saliency.scores(layer, pruning.gathered[name]) for name, layer in layers.items()})
    assert all(sums["steps"] == 2 for sums in pruning.gathered.values())
    for name in layers:
        torch.testing.assert_close(found[2][name], found[0][name])
        torch.testing.assert_close(found[1][name], found[0][name])


def test_what_an_earlier_checkpoint_brings_goes_to_the_device_of_the_layers() -> None:
    """Checkpoints are read on the CPU; the meta device stands for any other."""
    module = Digits().to("meta")
    trainer = SimpleNamespace(strategy=None, lightning_module=module)
    pruning, cycle = RankPruning(0.6), DynamicalLowRank(0.6)
    pruning.go_back(trainer, {"gathered": {"net.2": {"left": torch.eye(24)}}})
    cycle.layers = dict(factorized_layers(module))
    cycle.go_back(trainer, {"gradients": {"net.2": (torch.ones(48, 24), torch.ones(288, 24))}})
    assert pruning.gathered["net.2"]["left"].is_meta
    assert all(gradient.is_meta for gradient in cycle.gradients["net.2"])


def test_adaptive_ranks_need_a_compression(train_tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rank fraction"):
        train_tiny(ADAPTIVE, rank_fraction=0.5)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="start"):
        RobustLowrank(start=0.5)
    with pytest.raises(UserError, match="rank_budget adaptive"):
        RobustLowrank(allocation="sensitivity")
    with pytest.raises(UserError, match="sensitivity_range"):
        RobustLowrank(rank_budget="adaptive", allocation="sensitivity", sensitivity_range=2.0)
    with pytest.raises(UserError, match="val-fraction"):
        train_tiny(BY_SENSITIVITY, val_fraction=0.0)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": 0.5, "tolerance": 0.1}, {"compression": 1.5}, {"compression": 0.5, "begin": 0.7, "end": 0.6},
     {"compression": 0.5, "saliency": "spectrm"}, {"compression": 0.5, "cuts": 0},
     {"tolerance": 0.1, "sensitivity": Known("")},
     {"compression": 0.5, "sensitivity": Known(""), "sensitivity_range": 0.0}],
)  # fmt: skip
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(UserError):
        RankPruning(**options)


def test_a_budget_below_the_smallest_ranks_is_refused_before_the_first_step() -> None:
    with pytest.raises(UserError, match=r"leaves 0 parameters .* smaller compression"):
        fit(Digits(), [RankPruning(0.999)])


def test_a_budget_that_no_layer_can_meet_is_refused_before_the_first_step() -> None:
    module = Digits()
    for _, layer in factorized_layers(module):
        layer.requires_grad_(False)
    with pytest.raises(UserError, match=r"no rank can fall, and [\d.]+% .* not 60\.0%"):
        fit(module, [RankPruning(0.6)])


class Distilled(Digits):
    """A student beside a frozen teacher, which has factorized layers too."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = Digits().net.requires_grad_(False)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return (self.net(batch[0]) - self.teacher(batch[0])).square().mean()


@pytest.mark.parametrize("kind", [RankPruning, DynamicalLowRank])
def test_a_teacher_beside_the_network_neither_counts_nor_changes(kind: type) -> None:
    module, average = Distilled(), ExponentialAverage(0.9)
    before = {name: value.clone() for name, value in module.teacher.state_dict().items()}
    dense = deployed_size(module.net).dense
    schedule = kind(0.6, network="net")
    fit(module, [schedule, average])
    left = sum(p.numel() for p in fold(module.net).parameters())
    assert 0.6 <= 1 - left / dense <= 0.62
    assert all(torch.equal(value, before[name]) for name, value in module.teacher.state_dict().items())
    assert not any(p.requires_grad for p in module.teacher.parameters())
    ranks = {name: layer.rank for name, layer in factorized_layers(module) if name.startswith("net.")}
    assert schedule.history[-1]["ranks"] == ranks


def test_a_network_that_is_one_factorized_layer_goes_by_its_name_in_the_module() -> None:
    module = Digits()
    pruning = RankPruning(0.5, saliency="spectrum", network="net.6")
    fit(module, [pruning])
    assert pruning.history[-1]["ranks"] == {"net.6": module.net[6].rank}
    assert module.net[6].rank < 40
    assert [module.net[2].rank, module.net[4].rank] == [24, 32]


def test_a_training_without_gradients_before_the_cut_or_without_an_end_is_refused() -> None:
    with pytest.raises(UserError, match="two steps"):
        fit(Digits(), [RankPruning(0.6)], max_epochs=None, max_steps=1)
    with pytest.raises(UserError, match="max_epochs"):
        fit(Digits(), [RankPruning(0.6)], max_epochs=-1)


def test_a_budget_that_is_met_already_is_reported_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Digits(), [RankPruning(0.01, begin=0.1, end=0.5, cuts=1)])
    shown = capsys.readouterr()
    assert "ranks stay as they are: " in shown.err
    assert not shown.out
    with quieted():
        fit(Digits(), [RankPruning(0.01, begin=0.1, end=0.5, cuts=1)])
    assert not any(capsys.readouterr())
