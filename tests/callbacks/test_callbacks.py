"""The two constraints in a LightningModule that knows nothing else of zoo."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import rank_training
import torch
import torch.nn.functional as F
from constrained_module import UsersModule, Watch, fit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.callbacks import LayerHistory, OrthonormalRetraction, SpectrumClamp
from zoo.errors import UserError
from zoo.linalg import orthonormality_error, tangent
from zoo.lowrank.layers import FactorizedConv2d, FactorizedLinear, factorized_layers
from zoo.lowrank.tucker import TuckerConv2d


@given(
    st.sampled_from(["sgd", "adam", "rmsprop"]),
    st.floats(1e-3, 2),
    st.sampled_from([(0.0, False), (0.9, False), (0.9, True)]),
    st.sampled_from([0.0, 0.1, 0.5]),
)
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
def test_every_step_ends_orthonormal_and_well_conditioned(
    optimizer: str, lr: float, momentum: tuple[float, bool], tau: float
) -> None:
    watch = Watch()
    lr = lr if optimizer == "sgd" else lr / 10
    # Clipping keeps the loss finite at every rate; the steps stay as long as lr / (1 - momentum).
    callbacks = [OrthonormalRetraction(), SpectrumClamp(tau), watch]
    fit(UsersModule(optimizer, lr, *momentum), callbacks, gradient_clip_val=1.0)
    assert len(watch.condition) == 8
    assert max(watch.orthonormality) <= 1e-5
    assert max(watch.condition) <= 1 + tau + (2e-6 if tau == 0 else 0)


def test_without_factorized_layers_it_is_said_that_nothing_is_done() -> None:
    with pytest.warns(UserWarning, match="OrthonormalRetraction found no factorized layer and does nothing"):
        rank_training.fit(rank_training.Plain(), [OrthonormalRetraction()])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_once_per_real_step_under_accumulation_and_mixed_precision(precision: str) -> None:
    watch = Watch()
    callbacks = [OrthonormalRetraction(), SpectrumClamp(0.1), watch]
    trainer = fit(UsersModule(), callbacks, steps=5, accumulate_grad_batches=3, precision=precision)
    assert trainer.global_step == len(watch.condition) == 5
    assert max(watch.orthonormality) <= 1e-5
    assert max(watch.condition) <= 1.1


def test_layers_of_all_ranks_in_one_batch_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(**options) -> tuple[list[Tensor], Watch]:
        torch.manual_seed(0)
        module, watch = UsersModule(), Watch()
        fit(module, [OrthonormalRetraction(), SpectrumClamp(0.1), watch], **options)
        return [p.detach() for p in module.parameters()], watch

    expected, _ = trained(steps=3)
    monkeypatch.setattr("zoo.constraints._base.batches", lambda layers: [list(layers)])
    found, watch = trained(steps=3)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert max(watch.orthonormality) <= 1e-5
    assert max(watch.condition) <= 1.1


def test_without_the_callbacks_both_invariants_are_lost() -> None:
    watch = Watch()
    fit(UsersModule(lr=0.5), [watch])
    assert max(watch.orthonormality) > 1e-3
    assert max(watch.condition) > 1.1


@pytest.mark.parametrize(("nesterov", "clip"), [(False, None), (True, None), (False, 0.1)])
def test_momentum_is_tangent_at_every_step(nesterov: bool, clip: float | None) -> None:
    normal_parts: list[float] = []

    class Check(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.before: dict[nn.Parameter, Tensor] = {}
            optimizer = trainer.optimizers[0]
            optimizer.register_step_pre_hook(lambda *_: self.remember(pl_module))
            optimizer.register_step_post_hook(lambda *_: self.check(optimizer, pl_module))

        def remember(self, model: nn.Module) -> None:
            self.before = {p: p.detach().clone() for _, x in factorized_layers(model) for p in (x.U, x.V)}

        def check(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
            for p, x in self.before.items():
                momentum = optimizer.state[p]["momentum_buffer"]
                normal_parts.append(float((x.T @ momentum).norm() / momentum.norm().clamp_min(1e-9)))

    # Check comes first: its hooks see the momentum as the optimizer used it, at the point it was used.
    callbacks = [Check(), OrthonormalRetraction(), SpectrumClamp(0.5)]
    fit(UsersModule(lr=0.05, nesterov=nesterov), callbacks, gradient_clip_val=clip)
    assert max(normal_parts) < 1e-3


def test_retraction_does_not_change_the_weight() -> None:
    layer = FactorizedLinear(nn.Linear(30, 20), 6)
    with torch.no_grad():
        layer.U.add_(0.05 * torch.randn_like(layer.U))
        layer.V.add_(0.05 * torch.randn_like(layer.V))
    before = layer.weight.detach().clone()
    callback = OrthonormalRetraction()
    callback.layers = [layer]
    callback.project_(None)
    torch.testing.assert_close(layer.weight, before, atol=1e-5, rtol=1e-4)
    assert orthonormality_error(layer.U) <= 1e-5


def test_a_small_step_follows_the_gradient_flow_of_the_rank_r_manifold() -> None:
    """With S = s I the step is -lr (P_U' G P_V + P_U G P_V' + P_U G P_V): the projected gradient of W."""
    layer = FactorizedLinear(nn.Linear(12, 9, bias=False), 4, "random").double()
    x, y = torch.randn(32, 12).double(), torch.randn(32, 9).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6)
    callback = OrthonormalRetraction()
    callback.layers = [layer]
    callback.project_(None)  # U and V were orthonormal to fp32 only
    with torch.no_grad():
        layer.U.copy_(torch.linalg.qr(layer.U)[0])
        layer.V.copy_(torch.linalg.qr(layer.V)[0])
        layer.S.copy_(0.7 * torch.eye(4))
    weight = layer.weight.detach().clone().requires_grad_()
    gradient = torch.autograd.grad(F.mse_loss(x @ weight.T, y), weight)[0]
    u, v = layer.U.detach().clone(), layer.V.detach().clone()
    F.mse_loss(layer(x), y).backward()
    callback.on_before_optimizer_step(pl.Trainer(logger=False), pl.LightningModule(), optimizer)
    optimizer.step()
    callback.project_(optimizer)
    expected = gradient @ v @ v.T + u @ u.T @ gradient - u @ u.T @ gradient @ v @ v.T
    torch.testing.assert_close((weight - layer.weight).detach() / 1e-6, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("convolution", [FactorizedConv2d, TuckerConv2d])
def test_a_frozen_layer_is_left_bit_for_bit_and_the_others_are_constrained(convolution: type) -> None:
    module, watch = UsersModule(), Watch()
    module.net[2] = frozen = convolution(nn.Conv2d(8, 8, 3, stride=2), 5)
    with torch.no_grad():
        for p in frozen.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    frozen.requires_grad_(False)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    watch.measure(frozen)
    assert max(watch.orthonormality) > 1e-3
    assert max(watch.condition) > 1.1
    clamp = SpectrumClamp(0.1)
    fit(module, [OrthonormalRetraction(), clamp])
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    trained = Watch()
    trained.measure(nn.ModuleList(layer for _, layer in factorized_layers(module) if layer is not frozen))
    assert max(trained.orthonormality) <= 1e-5
    assert max(trained.condition) <= 1.1
    assert clamp.worst <= 1.1 * (1 + 1e-5)


@pytest.mark.parametrize("convolution", [FactorizedConv2d, TuckerConv2d])
def test_an_s_that_trains_between_frozen_bases_is_clamped(convolution: type) -> None:
    module = UsersModule()
    module.net[2] = layer = convolution(nn.Conv2d(8, 8, 3, stride=2), 5)
    layer.U.requires_grad_(False)
    layer.V.requires_grad_(False)
    before = layer.U.clone(), layer.V.clone()
    fit(module, [SpectrumClamp(0.1)])
    assert layer.condition_number() <= 1.1 * (1 + 1e-5)
    assert torch.equal(layer.U, before[0])
    assert torch.equal(layer.V, before[1])


def test_an_orthonormal_start_is_left_bit_for_bit() -> None:
    module = UsersModule()
    callback = OrthonormalRetraction()
    callback.layers = [layer for _, layer in factorized_layers(module)]
    before = [layer.U.detach().clone() for layer in callback.layers]
    callback.project_(None)
    assert all(torch.equal(a, layer.U) for a, layer in zip(before, callback.layers, strict=True))


def test_a_training_that_diverges_is_told_so_in_one_line() -> None:
    with pytest.raises(UserError, match=r"step 0 made net\.\d overflow; lower the learning rate"):
        fit(UsersModule(lr=1e30), [OrthonormalRetraction(), SpectrumClamp(0.1)])


def test_hooks_are_removed_after_the_fit() -> None:
    module = UsersModule()
    trainer = fit(module, [OrthonormalRetraction(), SpectrumClamp(0.1)], steps=1)
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def test_tangent_scale_of_a_negative_tau_is_refused() -> None:
    with pytest.raises(ValueError, match="tau"):
        SpectrumClamp(-0.1)
    assert tangent(torch.eye(3)[:, :2], torch.ones(3, 2))[:2].abs().max() == 0


def test_the_start_does_not_count_as_the_worst_step() -> None:
    layer = FactorizedLinear(nn.Linear(30, 20), 6)
    assert layer.condition_number() > 1.1
    clamp = SpectrumClamp(0.1)
    clamp.layers = [layer]
    clamp.project_(None)
    assert clamp.worst <= 1.1


@pytest.mark.parametrize(
    "content", ["epoch,layer\n0,a\n", "x\n1", "epoch,step,layer,rank,condition_number\nx,1,a,2,3\n"]
)
def test_a_damaged_history_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "layers.csv").write_text(content + "\n")
    with pytest.raises(UserError, match=r"layers\.csv is damaged \(\w+\): remove it to continue without it"):
        LayerHistory(tmp_path / "layers.csv")._rows(before=3)
