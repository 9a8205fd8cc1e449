"""The average of the weights is the average, and keeps the constraints of the weights."""

from itertools import pairwise

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from rank_training import Digits, Plain, fit, loader

from zoo.callbacks import ChannelPruning, ExponentialAverage, OrthonormalRetraction, RankPruning, SpectrumClamp
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.linalg.stiefel import orthonormality_error
from zoo.lowrank.layers import factorized_layers
from zoo.training import trainer as training


class Recorder(Callback):
    """Keeps the weights after each step, and those that are validated."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self.validated: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *_: object) -> None:
        self.steps.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    def on_validation_batch_start(self, trainer, pl_module, *_: object) -> None:
        self.validated.append({k: v.clone() for k, v in pl_module.state_dict().items()})


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found, original = Recorder(), training._callbacks
    monkeypatch.setattr(training, "_callbacks", lambda *args: [*original(*args), found])
    return found


def test_the_run_ends_with_the_average_of_the_weights_after_each_step(train_tiny, recorder) -> None:
    run = train_tiny("dense", epochs=3, ema=0.9)
    average = {k: v.double() for k, v in recorder.steps[0].items()}
    for t, state in enumerate(recorder.steps[1:], 1):
        decay = min(0.9, (1 + t) / (10 + t))
        average = {k: decay * average[k] + (1 - decay) * v for k, v in state.items()}
    ended = run.trained_model().state_dict()
    for name, value in ended.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[f"model.{name}"].float(), atol=1e-5, rtol=1e-4)
    last = recorder.steps[-1]
    assert not all(torch.equal(value, last[f"model.{name}"]) for name, value in ended.items())


def test_the_average_is_validated_and_training_goes_on_from_the_weights(train_tiny, recorder) -> None:
    plain, averaged = Recorder(), recorder
    train_tiny("robust_lowrank", "averaged", epochs=2, ema=0.9)
    with pytest.MonkeyPatch.context() as patch:
        original = training._callbacks
        patch.setattr(training, "_callbacks", lambda *args: [*original(*args)[:-1], plain])
        train_tiny("robust_lowrank", "plain", epochs=2)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(plain.steps, averaged.steps, strict=True) for k in a)
    assert not torch.equal(plain.validated[0]["model.backbone.fc.S"], averaged.validated[0]["model.backbone.fc.S"])


@pytest.mark.parametrize("adversary", ["none", "pgd"])
def test_the_average_keeps_the_constraints(train_tiny, recorder, adversary) -> None:
    run = train_tiny("robust_lowrank", epochs=2, ema=0.95, adversary=adversary, steps=2)
    for _, layer in factorized_layers(run.trained_model()):
        assert max(orthonormality_error(layer.U), orthonormality_error(layer.V)) <= 1e-5
        assert layer.condition_number() <= 1.1 * (1 + 1e-4)
    assert run.card.max_condition_number <= 1.1 * (1 + 1e-4)


def test_a_killed_run_resumes_with_its_average(train_tiny, dying_at, tmp_path) -> None:
    recipe = {"method": "robust_lowrank", "epochs": 3, "ema": 0.9}
    whole = train_tiny(name="whole", **recipe).trained_model().state_dict()
    with dying_at(17):
        train_tiny(name="killed", **recipe)
    zoo(["train", "--resume", str(tmp_path / "killed")])
    resumed = training.Run(tmp_path / "killed").trained_model().state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_images_are_not_copied_with_the_module(train_tiny, monkeypatch) -> None:
    sources = []
    original = ExponentialAverage.on_train_end

    def looks(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sources.append((self._average_model.module.source.images.data_ptr(), pl_module.source.images.data_ptr()))
        original(self, trainer, pl_module)

    monkeypatch.setattr(ExponentialAverage, "on_train_end", looks)
    train_tiny("dense", ema=0.9)
    ((of_average, of_module),) = sources
    assert of_average == of_module


def test_a_decay_out_of_range_is_refused(train_tiny) -> None:
    for ema in (1.0, -0.1, 2):
        with pytest.raises(UserError, match="ema must be in"):
            train_tiny(ema=ema)


def test_the_decay_grows_to_its_value() -> None:
    from zoo.callbacks.averaging import _average

    kept = []
    for t in range(0, 200, 10):
        mean = torch.ones(1)
        _average([mean], [torch.zeros(1)], t, 0.9)
        kept.append(mean.item())
    assert all(a <= b for a, b in pairwise(kept))
    assert kept[0] == pytest.approx(0.1)
    assert kept[-1] == pytest.approx(0.9)


class ReplacedAtTheEnd(Callback):
    """What any other library may do."""

    def on_train_end(self, trainer, pl_module) -> None:
        with torch.no_grad():
            for p in pl_module.parameters():
                p.add_(0.05 * torch.randn_like(p))


class Validated(Digits):
    """Says how far off the constraints the weights are that are validated."""

    def __init__(self, optimizer: str = "adam") -> None:
        super().__init__(optimizer)
        self.worst = 0.0

    def val_dataloader(self):
        return loader(1)

    def validation_step(self, batch, batch_idx) -> None:
        self.worst = max(self.worst, off(self))


def off(module: pl.LightningModule) -> float:
    """How far the worst factor is from orthonormal, or the worst condition number above 1.1."""
    layers = [layer for _, layer in factorized_layers(module)]
    bases = [orthonormality_error(x.detach()).item() for layer in layers for x in (layer.U, layer.V)]
    return max(*bases, *(layer.condition_number() / 1.1 - 1 for layer in layers))


CONSTRAINTS = (OrthonormalRetraction, lambda: SpectrumClamp(0.1))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: WeightAveraging(),
        lambda: EMAWeightAveraging(decay=0.9),
        lambda: EMAWeightAveraging(decay=0.9, update_every_n_steps=3),
        lambda: StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=1),
        ReplacedAtTheEnd,
    ],
)
def test_beside_other_averages_the_constraints_hold_where_they_are_validated_and_at_the_end(make, first: bool) -> None:
    module, constraints = Validated(), [constraint() for constraint in CONSTRAINTS]
    fit(module, [*constraints, make()] if first else [make(), *constraints], num_sanity_val_steps=0, max_epochs=3)
    assert module.worst <= 1e-4
    assert off(module) <= 1e-4


def test_statistics_that_are_gathered_for_an_average_are_those_of_the_constrained_one() -> None:
    """`StochasticWeightAveraging` runs its last epoch on the average, for BatchNorm."""
    module, seen = Validated(), []
    module.net.insert(2, torch.nn.BatchNorm2d(32))

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_: object) -> None:
            seen.append(off(pl_module))

    averaging = StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=1)
    fit(module, [*(constraint() for constraint in CONSTRAINTS), averaging, Watch()])
    assert len(seen) == 3 * 16
    assert max(seen) <= 1e-4


@pytest.mark.parametrize("kind", ["ranks", "channels"])
def test_an_average_that_cannot_follow_a_change_of_shapes_is_refused(kind: str) -> None:
    module, schedule = (Digits(), RankPruning(0.6, cuts=2)) if kind == "ranks" else (Plain(), ChannelPruning(0.5))
    with pytest.raises(UserError, match="StochasticWeightAveraging cannot be combined with"):
        fit(module, [schedule, StochasticWeightAveraging(0.01, swa_epoch_start=1)])


def test_an_optimizer_with_weights_of_its_own_is_refused_by_name() -> None:
    class ScheduleFree(torch.optim.SGD):
        def step(self, closure=None):
            found = super().step(closure)
            for p in self.param_groups[0]["params"]:
                self.state[p].setdefault("z", p.detach().clone())
            return found

    module = Digits()
    module.configure_optimizers = lambda: ScheduleFree(module.parameters(), 0.01)
    with pytest.raises(UserError, match=r"ScheduleFree .*'z'.*AdamW"):
        fit(module, [OrthonormalRetraction()])
