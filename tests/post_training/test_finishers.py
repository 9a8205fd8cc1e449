"""Rift: robust accuracy stays, constraints hold, and nothing but one layer moves."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from zoo.backbone import with_normalization
from zoo.callbacks import SpectrumClamp
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.linalg import orthonormality_error
from zoo.lowrank.layers import factorized_layers
from zoo.methods.dense import Dense
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.post_training import FINISHERS
from zoo.post_training.rift import Rift
from zoo.runs.config import TrainConfig
from zoo.runs.run import Run
from zoo.training.build import dense_backbone, open_config_data
from zoo.training.fine_tuning import fine_tune
from zoo.training.module import Classifier
from zoo.training.parts import Parts

QUICKLY = ["--finish", "rift", "--finish.epochs", "1", "--finish.n", "20", "--finish.lr", "1"]


@pytest.fixture(scope="module")
def robust_run(tmp_path_factory) -> Path:
    """A run of robust_lowrank that was trained adversarially on a few digits."""
    folder = tmp_path_factory.mktemp("runs") / "robust"
    small = ["--arch", "test_resnet", "--epochs", "2", "--n", "20", "--compression", "0.5"]
    zoo(["train", *small, "--adversary", "fgsm_rs", "--precision", "32-true", "--device", "cpu", "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def finished_run(robust_run: Path) -> Run:
    """The same run after rift."""
    zoo(["finish", str(robust_run), *QUICKLY])
    return Run(robust_run.with_name("robust-rift"))


def test_one_layer_moves_and_the_constraints_hold(robust_run: Path, finished_run: Run) -> None:
    before = load_file(robust_run / "model.safetensors")
    applied = finished_run.card.applied
    assert [(x["kind"], x["name"]) for x in applied] == [
        ("method", "robust_lowrank"), ("adversary", "fgsm_rs"), ("finisher", "rift"),
    ]  # fmt: skip
    outcome = applied[-1]["outcome"]
    after = load_file(finished_run.folder / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= {f"{outcome['module']}.S", f"{outcome['module']}.weight"}
    assert bool(moved) == (outcome["kept"]["alpha"] > 0)
    layers = dict(factorized_layers(finished_run.trained_model()))
    assert max(float(torch.linalg.cond(layer.S.detach().double())) for layer in layers.values()) <= 1.1 + 1e-4
    assert max(float(orthonormality_error(x.detach())) for layer in layers.values() for x in (layer.U, layer.V)) <= 1e-5
    path, kept = outcome["path"], outcome["kept"]
    assert [point["alpha"] for point in path] == pytest.approx([k / 10 for k in range(11)])
    assert kept["robust"] >= path[0]["robust"] - 0.001
    assert kept["clean"] >= path[0]["clean"]
    assert outcome["criticality"][outcome["module"]] == min(outcome["criticality"].values())


def test_only_the_part_learns_and_it_does() -> None:
    config = TrainConfig(arch="test_resnet", device="cpu", precision="32-true", lr=0.1)
    data = open_config_data(config)
    method = RobustLowrank()
    model = dense_backbone(config, data)
    model = with_normalization(method.convert(model, method.plan(model, None)), data.mean, data.std)
    module = Classifier(model, Parts(method), data, data.source(train=True), config).eval()
    layer = model.backbone.fc
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = module.probe()
    loss = F.cross_entropy(model(images), labels)
    fine_tune(module, layer, layer.S, [SpectrumClamp(0.1)], epochs=1, lr=0.1)
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"backbone.fc.S"}
    assert F.cross_entropy(model(images), labels) < loss
    assert layer.condition_number() <= 1.1 + 1e-5
    assert all(p.requires_grad for p in model.parameters())
    assert not any(part.training for part in model.modules())


def test_a_training_may_end_with_it(robust_run: Path, finished_run: Run, tmp_path: Path) -> None:
    """The same recipe with a finisher gives the same network as finishing its run."""
    out = tmp_path / "whole"
    recipe = ["--config", str(robust_run / "config.yaml"), "--adversary", "fgsm_rs"]
    zoo(["train", *recipe, "--out", str(out), *QUICKLY])
    whole, later = (load_file(folder / "model.safetensors") for folder in (out, finished_run.folder))
    assert all(torch.equal(whole[name], later[name]) for name in whole)
    assert Run(out).card.applied == finished_run.card.applied


def test_the_best_of_those_robust_enough_is_kept() -> None:
    rift = Rift(tolerance=0.01)
    path = [
        {"alpha": 0.0, "clean": 0.80, "robust": 0.500},
        {"alpha": 0.1, "clean": 0.85, "robust": 0.495},
        {"alpha": 0.2, "clean": 0.85, "robust": 0.510},
        {"alpha": 0.3, "clean": 0.90, "robust": 0.480},
    ]
    assert rift._best(path)["alpha"] == 0.1
    assert rift._best(path[:1])["alpha"] == 0.0


def test_combinations_without_meaning_are_refused(robust_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="adversarial training cost"):
        zoo(["train", "--arch", "test_resnet", "--finish", "rift", "--out", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="adversarial training cost"):
        Parts(Dense(), finisher=Rift())
    with pytest.raises(UserError, match="name what to apply"):
        zoo(["finish", str(robust_run)])
    with pytest.raises(UserError, match="no run at"):
        zoo(["finish", str(tmp_path / "nothing"), *QUICKLY])
    with pytest.raises(UserError, match="which is not changed"):
        zoo(["finish", str(robust_run), *QUICKLY, "--out", f"{robust_run}/../{robust_run.name}", "--overwrite", "true"])
    assert (robust_run / "card.json").is_file()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"radius": -1.0}, {"tolerance": 1.0}, {"n": 0}])
def test_impossible_options_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError):
        Rift(**wrong)


def test_every_finisher_is_described() -> None:
    for name in FINISHERS.names():
        plugin = FINISHERS.get(name)()
        assert FINISHERS.describe()[name]
        assert type(plugin)(**asdict(plugin)) == plugin
