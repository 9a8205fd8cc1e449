"""The functions of `zoo` for a model of one's own."""

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import zoo
from zoo.attacks.pgd import PGD
from zoo.backbone import ends
from zoo.budget import Budget
from zoo.cli import run as command
from zoo.errors import UserError
from zoo.lowrank.layers import factorized_layers
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.runtime.complexity import count_params

SHAPE = (3, 32, 32)
DOCUMENTED = (
    "zoo.api.compression",
    "zoo.api.robustness",
    "zoo.api.onnx_export",
    "zoo.constraints.bounded_spectrum",
    "zoo.constraints.low_rank",
    "zoo.constraints.orthonormal",
)


class OwnNet(nn.Module):
    """A network with BatchNorm, a depthwise convolution and a normalisation of its own."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.wide = nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.wide(self.depthwise(self.stem((images - 0.5) / 0.25)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    return OwnNet().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(12, *SHAPE)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_examples_in_the_documentation_are_true(name: str) -> None:
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(recurse=True).find(module):
        torch.manual_seed(0)
        assert doctest.DocTestRunner().run(test).failed == 0
    assert doctest.DocTestFinder().find(module)


def test_every_public_function_has_an_example_that_is_run() -> None:
    own = [getattr(zoo, name) for name in zoo.__all__ if getattr(zoo, name).__module__.startswith("zoo.api")]
    assert len(own) == 5
    assert all(">>>" in function.__doc__ and function.__module__ in DOCUMENTED for function in own)


def test_importing_zoo_does_not_import_torch() -> None:
    code = (
        "import sys, zoo; assert 'torch' not in sys.modules; assert zoo.attack; assert 'lightning' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(zoo.__file__).parents[1]).returncode == 0


@pytest.mark.parametrize("method", ["lowrank", "robust_lowrank", "magnitude_prune"])
def test_a_compressed_copy_has_the_size_that_was_asked_for(method: str, net: nn.Module, images: Tensor) -> None:
    before = [p.clone() for p in net.parameters()]
    compressed = zoo.compress(net, method, 0.5, input_shape=SHAPE)
    assert 0.5 <= compressed.compression <= 0.55
    deployed = zoo.deploy(compressed.model)
    assert count_params(deployed) == compressed.params
    torch.testing.assert_close(deployed(images), compressed.model(images), atol=1e-4, rtol=1e-3)
    assert [row.name for row in compressed.layers] == ["stem.0", "depthwise", "wide.0", "head"]
    assert "50" in str(compressed).splitlines()[-1] or "5" in f"{compressed.compression:.1%}"
    torch.testing.assert_close(list(net.parameters()), before, atol=0, rtol=0)
    assert not any(factorized_layers(net))
    assert not any(module.training for module in compressed.model.modules())


def test_everything_but_the_factorized_weights_stays(net: nn.Module) -> None:
    compressed = zoo.compress(net, "lowrank", 0.5)
    assert [name for name, _ in factorized_layers(compressed.model)] == ["wide.0"]
    assert "depthwise" in {row.name: row.note for row in compressed.layers}["depthwise"]
    torch.testing.assert_close(compressed.model.stem.state_dict(), net.stem.state_dict())


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.resnet18(num_classes=10),
        lambda: timm.create_model("test_resnet", num_classes=10),
    ],
    ids=["torchvision", "timm"],
)
def test_models_of_others(build) -> None:
    model = build()
    compressed = zoo.compress(model, RobustLowrank(tau=0.2), 0.6)
    assert 0.6 <= compressed.compression <= 0.62
    assert zoo.deploy(compressed.model).eval()(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_the_ends_of_a_foreign_model_are_found_by_order(net: nn.Module) -> None:
    assert ends(net) == ({"stem.0"}, {"head"})
    assert ends(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))) == ({"0"}, {"2"})
    assert ends(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))) == ({"0"}, {"1"})
    assert ends(nn.Identity()) == (set(), set())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lowrnk"}, "did you mean lowrank"),
        ({"method": "robust_lowrank", "tua": 1}, "unknown option of robust_lowrank 'tua'"),
        ({"method": RobustLowrank(), "tau": 1}, "leave tau out"),
        ({"method": "lowrank", "init": "outputs"}, "needs|only a training has"),
        ({"method": "hydra", "input_shape": SHAPE}, "magnitude_prune"),
        ({"method": "magnitude_prune"}, "input_shape"),
        ({"compression": 80}, "between 0 and 1"),
        ({"compression": Budget(compression=0.5, macs_reduction=0.4)}, "input_shape"),
        ({"input_shape": (32, 32)}, "channels, height, width"),
        ({"input_shape": (1, 32, 32)}, r"cannot take images \(2, 1, 32, 32\)"),
    ],
)
def test_what_cannot_be_compressed_is_told_in_one_line(net: nn.Module, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        zoo.compress(net, **arguments)
    assert "\n" not in str(error.value)
    assert not hasattr(net, "image_shape")


def test_a_compressed_model_is_not_compressed_again(net: nn.Module) -> None:
    with pytest.raises(UserError, match="deploy"):
        zoo.compress(zoo.compress(net, compression=0.5).model)


def test_attack_finds_what_the_attack_itself_finds(net: nn.Module, images: Tensor) -> None:
    labels = net(images).argmax(1)
    found = zoo.attack(net, images, labels.tolist(), "2/255", steps=4)
    expected = PGD(steps=4)(net, images, labels, [2 / 255])
    torch.testing.assert_close(found.images, expected.adversarial[0], atol=0, rtol=0)
    assert torch.equal(found.robust, expected.robust[0])
    function = zoo.attack(lambda x: net(x), images, labels, 2 / 255, PGD(steps=4))
    torch.testing.assert_close(function.images, found.images, atol=0, rtol=0)


def test_attack_and_evaluate_agree(net: nn.Module) -> None:
    images = torch.randint(256, (12, *SHAPE), dtype=torch.uint8)
    labels = net(images / 255).argmax(1)
    clean, attacked = zoo.evaluate(net, images, labels, "fgsm", "1/255")
    assert (clean.attack, clean.accuracy, clean.n) == ("clean", 1.0, 12)
    assert attacked.accuracy == float(zoo.attack(net, images, labels, "1/255", "fgsm").robust.float().mean())
    assert zoo.evaluate(net, images / 255, labels, ["fgsm"], [1 / 255]) == [clean, attacked]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model, x, y: (model.train(), x, y), r"training mode: call model.eval\(\)"),
        (lambda model, x, y: (lambda z: (model(z), 0), x, y), "returns a tuple"),
        (lambda model, x, y: (lambda z: {"logits": model(z)}, x, y), "returns a dict"),
        (lambda model, x, y: (lambda z: model(z)[0], x, y), r"logits \(B, classes\) are needed"),
        (lambda model, x, y: (model, 255 * x, y), r"give pixels in \[0, 1\]"),
        (lambda model, x, y: (model, x - 0.5, y), r"give pixels in \[0, 1\]"),
        (lambda model, x, y: (model, x[0], y), r"images are a tensor \(B, C, H, W\)"),
        (lambda model, x, y: (model, x[:, :1], y), "cannot take images"),
        (lambda model, x, y: (model, x, y[:-1]), "one class index for each of the 12 images"),
        (lambda model, x, y: (model, x, y.float()), "class index"),
        (lambda model, x, y: (model, x, y + 100), "the model has classes"),
    ],
)
@pytest.mark.parametrize("door", [zoo.attack, zoo.evaluate])
def test_what_cannot_be_attacked_is_told_in_one_line(
    door, change, message: str, net: nn.Module, images: Tensor
) -> None:
    with pytest.raises(UserError, match=message) as error:
        door(*change(net, images, torch.arange(12) % 4), eps="1/255")
    assert "\n" not in str(error.value)


def test_an_own_model_is_exported_and_timed(net: nn.Module, images: Tensor, tmp_path: Path) -> None:
    compressed = zoo.compress(net, "lowrank", 0.5, input_shape=SHAPE)
    path = tmp_path / "own.onnx"
    written = zoo.export_onnx(compressed, path, class_names=["a", "b", "c", "d"])
    assert (written.factorized, written.metadata.dense_params) == (1, compressed.dense_params)
    session = ort.InferenceSession(path)
    logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    torch.testing.assert_close(logits, compressed.model(images), atol=1e-4, rtol=1e-3)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["class_names"]) == ["a", "b", "c", "d"]
    assert (properties["data"], properties["training"]) == ("", "")
    assert properties["arch"].endswith("OwnNet")

    options = ["--rounds", "2", "--seconds", "0.001", "--batch-size", "2", "--device", "cpu"]
    command(["bench", str(path), *options])
    (row,) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert row["latency"][0]["ratio_to_dense"] is None
    assert "no data set" in row["note"]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (nn.Module.train, {"input_shape": SHAPE}, "training mode"),
        (nn.Module.eval, {}, "input_shape"),
        (nn.Module.eval, {"input_shape": SHAPE, "class_names": ["a"]}, "4 classes, class_names 1"),
        (nn.Module.eval, {"input_shape": SHAPE, "data": "cifar"}, "did you mean cifar10"),
        (lambda m: nn.Sequential(m, nn.Softmax(1), nn.Unflatten(1, (2, 2))).eval(), {"input_shape": SHAPE}, "logits"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(
    change, arguments: dict, message: str, net: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        zoo.export_onnx(change(net), tmp_path / "own.onnx", **arguments)
    assert not list(tmp_path.iterdir())
