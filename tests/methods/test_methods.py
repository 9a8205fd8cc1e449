"""What holds for every method: a new file in zoo/methods is tested here without an edit."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.cli._parser import Parser
from zoo.cli._plugin_flags import FLAGS
from zoo.cli.train import add_arguments
from zoo.errors import UserError
from zoo.export.exporter import export_model
from zoo.lowrank.factorize import Ranks, weight_layers
from zoo.methods import METHODS
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run
from zoo.runtime.complexity import count_params

ARCHS = ["test_resnet", "test_vit", "test_efficientnet"]
IMAGE = (3, 32, 32)
pairs = pytest.mark.parametrize(("name", "arch"), [(m, a) for m in METHODS.names() for a in ARCHS])


def converted(name: str, arch: str, ranks: Ranks | None = None) -> tuple[torch.nn.Module, Ranks]:
    method = METHODS.get(name)()
    model = create_backbone(arch, 10, IMAGE)
    ranks = method.plan(model, None) if ranks is None else ranks
    return with_normalization(method.convert(model, ranks), (0.5,) * 3, (0.25,) * 3), ranks


@pairs
def test_learns_and_keeps_its_deployed_answers(name: str, arch: str) -> None:
    method = METHODS.get(name)()
    model, _ = converted(name, arch)
    x, y = torch.rand(16, *IMAGE), torch.arange(16) % 10
    optimizer = torch.optim.SGD(method.parameter_groups(model, 0.0), lr=0.02)
    losses = []
    for _ in range(6):
        result = method.loss(model.train(), x, y)
        assert result["logits"].shape == (16, 10)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(result["loss"].item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        deployed = method.deploy(model.eval())
        torch.testing.assert_close(deployed(x), model(x), rtol=1e-3, atol=1e-4)
    assert deployed is not model


@pairs
def test_every_parameter_is_optimized_once(name: str, arch: str) -> None:
    model, _ = converted(name, arch)
    groups = METHODS.get(name)().parameter_groups(model, 1e-4)
    listed = [p for group in groups for p in group["params"]]
    assert len(listed) == len(set(map(id, listed)))
    assert {id(p) for p in listed} == {id(p) for p in model.parameters()}


@pairs
def test_saved_ranks_and_weights_rebuild_the_model(name: str, arch: str) -> None:
    model, ranks = converted(name, arch)
    again, _ = converted(name, arch, ranks)
    again.load_state_dict(model.state_dict())
    x = torch.rand(2, *IMAGE)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), again.eval()(x))


@pytest.mark.parametrize("name", METHODS.names())
def test_help_names_every_hyper_parameter(name: str, capsys: pytest.CaptureFixture) -> None:
    parser = Parser(prog="zoo train")
    add_arguments(parser, {flag: kind.default for flag, kind in FLAGS.items()} | {"method": name})
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    for field in dataclasses.fields(METHODS.get(name)):
        assert f"--method.{field.name}" in text
    assert METHODS.describe()[name]


@pytest.mark.parametrize("name", METHODS.names())
def test_a_run_holds_what_the_readme_promises(name: str, train_tiny) -> None:
    run: Run = train_tiny(name)
    folder: Path = run.folder
    assert {p.name for p in folder.iterdir()} >= {
        "config.yaml", "metrics.csv", "last.ckpt", "model.safetensors", "card.json"
    }  # fmt: skip
    card = run.card
    assert (card.arch, card.method, card.data) == ("test_resnet", name, "digits")
    assert card.params == count_params(run.model())
    assert card.evaluations[0].attack == "clean"
    assert card.weights.bytes == (folder / card.weights.file).stat().st_size
    assert set(load_file(folder / card.weights.file)) == set(run.trained_model().state_dict())
    assert card.max_condition_number is not None
    assert card.max_condition_number >= 1
    done = export_model(run.model(), Metadata.of(card), folder / "model.onnx")
    assert max(done.parity.values()) <= 1e-4


@pytest.mark.measured
def test_a_run_ends_with_a_quick_evaluation(train_tiny) -> None:
    card = train_tiny("robust_lowrank").card
    attacks = {("clean", None), ("fgsm", "Linf"), ("pgd", "Linf"), ("pgd", "L2")}
    assert {(e.attack, e.norm) for e in card.evaluations} == attacks
    assert all(0 <= e.accuracy <= 1 and e.n == 60 for e in card.evaluations)
    assert card.lipschitz_bound > 0
    assert card.max_condition_number <= 1.1 + 1e-4


def test_robust_lowrank_bounds_every_condition_number(train_tiny) -> None:
    robust, plain = train_tiny("robust_lowrank", "a", lr=0.3), train_tiny("lowrank", "b", lr=0.3)
    assert robust.card.max_condition_number <= 1.1 + 1e-4
    assert plain.card.max_condition_number > 2


@pytest.mark.parametrize("tau", [-1.0, float("nan"), float("inf")])
def test_an_impossible_tau_is_refused(tau: float) -> None:
    with pytest.raises(UserError, match="tau"):
        METHODS.get("robust_lowrank")(tau=tau)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean robust_lowrank"):
        METHODS.get("robust_lowrnk")
    with pytest.raises(UserError, match=r"did you mean .*resnet18"):
        create_backbone("resnet-18", 10, IMAGE)


def test_condlr_at_full_rank_fraction_one_factorizes_everything() -> None:
    model = create_backbone("test_resnet", 10, IMAGE)
    ranks = METHODS.get("robust_lowrank")().plan(model, Budget(rank_fraction=1.0))
    assert ranks == {layer.name: layer.full_rank for layer in weight_layers(model) if not layer.obstacle}
