"""Published models in Python, and training that starts from one."""

import subprocess
import sys

import pytest
import torch
import yaml
from hub_server import FaultyServer
from torch import nn

import zoo
from zoo.cli import run as cli
from zoo.errors import UserError
from zoo.hub.search import BUNDLED, find
from zoo.linalg import condition_number
from zoo.lowrank.layers import Factorized, factorized_layers
from zoo.publishing.measure import EvaluationSplit
from zoo.runs.run import Run

NAME = "test_resnet.robust_lowrank50_digits"


def test_a_model_by_name_has_the_accuracy_of_its_card() -> None:
    model = zoo.create_model(NAME)
    card = Run(find(NAME).folder()).card
    n = card.clean.n
    split = EvaluationSplit.of(card).first(n)
    right = (model(split.images.float() / 255).argmax(1) == split.labels).float().mean().item()
    assert right == pytest.approx(card.clean.accuracy, abs=2 / n)
    assert not any(isinstance(module, Factorized) for module in model.modules())
    assert not model.training


def test_loading_needs_no_lightning() -> None:
    code = f"import sys, zoo; zoo.create_model({NAME!r}); sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_weights_and_with_other_classes() -> None:
    images = torch.rand(2, 1, 8, 8)
    published, fresh = zoo.create_model(NAME), zoo.create_model(NAME, pretrained=False)
    assert [p.shape for p in published.parameters()] == [p.shape for p in fresh.parameters()]
    assert not torch.allclose(published(images), fresh(images))
    few = zoo.create_model(NAME, num_classes=3)
    assert few(images).shape == (2, 3)
    same = [(a, b) for a, b in zip(published.state_dict().values(), few.state_dict().values(), strict=True)]
    assert all(torch.equal(a, b) for a, b in same[:-2])


def test_images_that_are_not_in_0_to_1_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="the images are uint8: the model takes floats in"):
        zoo.load(BUNDLED / NAME)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"the images range from -2.1 to 2.3: the model takes \[0, 1\]"):
        zoo.create_model(NAME)(torch.tensor([-2.1, 2.3]).repeat(32).view(1, 1, 8, 8))
    model = zoo.load(BUNDLED / NAME)
    model(torch.full((1, 1, 8, 8), 1.005))  # a cubic filter rings
    model(torch.full((1, 1, 8, 8), 3.0))  # only the first batch is looked at: reading values waits for a GPU
    assert torch.export.export(zoo.load(BUNDLED / NAME), (torch.rand(2, 1, 8, 8),))


def test_without_weights_nothing_but_the_card_is_downloaded(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    server = FaultyServer(BUNDLED)
    with server.running():
        zoo.create_model(NAME, pretrained=False, hub=server.address)
    assert {path for path, _ in server.requests} == {"/index.json", f"/{NAME}/card.json"}


@pytest.mark.parametrize("wrong", [{"max_params": "2M"}, {"min_robust": "0.4"}, {"threat": ("Linf",)}, {"threat": 0.1}])
def test_an_argument_of_another_type_is_answered(wrong: dict) -> None:
    with pytest.raises(UserError, match=r"is not a n"):
        zoo.list_models(**wrong)


def test_a_hub_may_be_a_path(tmp_path) -> None:
    (tmp_path / "index.json").write_text("{}")
    assert zoo.list_models(hub=tmp_path) == zoo.list_models(hub=str(tmp_path))


def test_names_are_listed_and_wrong_ones_answered() -> None:
    assert NAME in zoo.list_models("test_resnet*", data="digits", max_params=1_000_000, hub="")
    assert zoo.list_models("*nothing*", hub="") == []
    with pytest.raises(UserError, match=f"did you mean .*{NAME}"):
        zoo.create_model("test_resnet.robust_lowrank_digits", hub="")
    with pytest.raises(UserError, match="is an architecture: choose one of its models"):
        zoo.create_model("test_resnet", hub="")
    with pytest.raises(UserError, match="num_classes must be at least 1"):
        zoo.create_model(NAME, num_classes=0)
    with pytest.raises(UserError, match="not a norm and a radius"):
        zoo.list_models(threat=("L1", 0.1), hub="")
    with pytest.raises(AttributeError):
        getattr(zoo, "nothing")  # noqa: B009


def constrained(model: nn.Module, bound: float) -> bool:
    return all(
        condition_number(torch.linalg.svdvals(layer.S)) <= bound
        and torch.dist(layer.U.T @ layer.U, torch.eye(layer.rank)) < 1e-4
        for _, layer in factorized_layers(model)
    )


def test_fine_tuning_keeps_the_ranks_and_the_constraints(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.data.digits import Digits

    # The same images with other labels: whether a digit is even, so two classes instead of ten.
    original = Digits.source

    def parity(self: Digits, train: bool):
        source = original(self, train)
        return type(source)(source.images, source.labels % 2)

    monkeypatch.setattr(Digits, "source", parity)
    monkeypatch.setattr(Digits, "class_names", ("even", "odd"))
    out = tmp_path / "run"
    cli(["train", "--init", NAME, "--epochs", "1", "--lr", "0.01", "--n", "60", "--device", "cpu", "--out", str(out)])
    start, run = Run(find(NAME).folder()), Run(out)
    assert (run.card.arch, run.card.method, run.card.method_options["tau"]) == ("test_resnet", "robust_lowrank", 0.1)
    assert run.card.ranks == start.card.ranks | {"fc": 2}
    assert constrained(run.trained_model(), 1.1 * (1 + 1e-4))
    assert run.card.clean.accuracy > 0.8  # one epoch on top of what digits look like
    assert yaml.safe_load((out / "config.yaml").read_text())["init"] == NAME


@pytest.mark.parametrize("method", ["rank_adaptive", "magnitude_prune"])
def test_a_start_whose_ranks_have_fallen_is_not_cut_again(method: str, train_tiny, tmp_path) -> None:
    start = train_tiny(method, "start", compression=0.5)
    out = tmp_path / "again"
    cli(["train", "--init", str(start.folder), "--epochs", "1", "--n", "60", "--device", "cpu", "--out", str(out)])
    assert Run(out).card.ranks == start.card.ranks
    assert Run(out).card.params == start.card.params


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--compression", "0.5"], "keeps the ranks"),
        (["--arch", "resnet18"], "leave --arch resnet18 out"),
        (["--method", "dense"], "does not fit|full rank|cannot"),
        (["--weights", "x.safetensors"], "only one of"),
    ],
)
def test_what_does_not_go_with_a_start(flags: list[str], words: str, tmp_path) -> None:
    with pytest.raises(UserError, match=words):
        cli(["train", "--init", NAME, "--out", str(tmp_path / "run"), *flags])
    assert not (tmp_path / "run").exists()
