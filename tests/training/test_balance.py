"""Layers before a BatchNorm turn by the same angle in a step, and answers stay what they were."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from zoo.adversaries.n_fgsm import NFGSM
from zoo.backbone import create_backbone, with_normalization
from zoo.constraints import LowRankConstraint
from zoo.data import open_data
from zoo.errors import UserError
from zoo.lowrank.factorize import factorize
from zoo.lowrank.layers import FactorizedLinear
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.post_training.none import NoFinisher
from zoo.regularizers.none import NoRegularizer
from zoo.runs.config import TrainConfig
from zoo.training.balance import balance_layers_, relative_change, scale_
from zoo.training.build import starting_model
from zoo.training.module import Classifier
from zoo.training.parts import Parts


def test_a_scaled_layer_and_its_batch_norm_answer_as_before() -> None:
    torch.manual_seed(0)
    model = create_backbone("test_resnet", 10, (3, 32, 32)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(1e-6, 1e-4)  # where eps counts
    images = torch.rand(4, 3, 32, 32)
    before = model(images)
    for factor in (30.0, 0.1):
        scale_(model.layer1[0].conv1, model.layer1[0].bn1, factor)
        assert torch.allclose(model(images), before, rtol=1e-4, atol=1e-4 * before.abs().max().item())


@pytest.mark.parametrize("form", ["matrix", "tucker"])
def test_the_relative_change_is_that_of_a_small_step(form: str) -> None:
    torch.manual_seed(0)
    model = factorize(nn.Sequential(nn.Conv2d(8, 12, 3)).double(), {"0": 4}, convolution=form)
    layer = model[0]
    model(torch.rand(2, 8, 9, 9).double()).square().sum().backward()
    predicted, before, h = relative_change(layer), layer.weight.detach().clone(), 1e-7
    with torch.no_grad():
        for parameter in (layer.U, layer.S, layer.V):
            parameter -= h * parameter.grad
    assert predicted == pytest.approx(float((layer.weight - before).norm() / before.norm() / h), rel=1e-4)


def test_without_gradients_there_is_no_change() -> None:
    assert relative_change(FactorizedLinear(nn.Linear(6, 5), rank=2)) == 0
    assert relative_change(nn.Linear(6, 5)) == 0


@pytest.mark.parametrize("options", [{"optimizer": "adamw"}, {"weight_decay": 0.0}])
def test_it_needs_weight_decay_and_sgd(options: dict) -> None:
    with pytest.raises(UserError, match="--balance true is for SGD with weight decay"):
        TrainConfig(balance=True, **options)


def test_layers_turn_as_at_equilibrium_and_answers_stay() -> None:
    config = TrainConfig(
        arch="test_resnet", data="digits", compression=0.5, epochs=1, lr=0.05, ema=0.9, balance=True, eps="0.1"
    )
    data = open_data("digits")
    torch.manual_seed(0)
    model = with_normalization(starting_model(config, RobustLowrank(tau=1.0), data), data.mean, data.std)
    spoiled = model.get_submodule("backbone.layer1.0.conv1")
    with torch.no_grad():
        spoiled.S.mul_(0.01)
    LowRankConstraint(tau=1.0).project_(model)
    module = Classifier(
        model,
        Parts(RobustLowrank(tau=1.0), NFGSM(), NoRegularizer(), NoFinisher()),
        data,
        data.source(train=True),
        config,
    )
    seen: dict[str, object] = {}

    class Watch(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.images, _ = module.probe()
            seen["before"] = module.model.eval()(self.images)
            module.model.train()

        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen["after"] = module.model.eval()(self.images)
            seen["scales"] = balance_layers_(module)  # a second time there is nothing left to do
            module.model.train()

    trainer = pl.Trainer(
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[Watch()],
        limit_val_batches=0,
    )
    trainer.fit(module)
    assert (seen["after"] - seen["before"]).abs().max() < 1e-3 * seen["before"].abs().max()
    assert len(seen["scales"]) > 5
    assert all(scale == pytest.approx(1, abs=0.1) for scale in seen["scales"].values())
