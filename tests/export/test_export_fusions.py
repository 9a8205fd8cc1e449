"""What ONNX Runtime makes of the graphs: GELU as one operator with its bias, no rounding twice, tied weights once."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from optimised_graph import detours, is_blocked, kinds, left_over, optimised
from torch import Tensor, nn
from torch.nn.functional import linear

from zoo.backbone import create_backbone
from zoo.errors import UserError
from zoo.export.onnx_file import OPSET, write_onnx
from zoo.export.precision import to_int8

FORMS = pytest.mark.parametrize("approximate", ["none", "tanh"])
FUSED = ("Gelu", "BiasGelu", "FastGelu", "QuickGelu")


class Tokens(nn.Module):
    """Two layers on a sequence, as in a transformer."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Linear(32, 64), function, nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.function(self.first(images.flatten(2)))).mean(1)


def written(model: nn.Module, path: Path, shape: tuple[int, int, int], **options: int) -> Path:
    """Write a model, and see that the file answers as it does."""
    write_onnx(model.eval(), path, shape, {}, **options)
    images = torch.rand(3, *shape)
    logits = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), model(images).detach(), rtol=1e-4, atol=1e-5)
    return path


def in_integers(file: Path, shape: tuple[int, int, int]) -> Path:
    images = np.random.default_rng(0).random((16, *shape), dtype=np.float32)
    to_int8(file, file.with_suffix(".int8.onnx"), images, seven_bits=True, threads=1)
    return file.with_suffix(".int8.onnx")


@FORMS
def test_gelu_is_one_operator_with_its_bias(approximate: str, tmp_path: Path) -> None:
    file = written(Tokens(nn.GELU(approximate)), tmp_path / "model.onnx", (4, 8, 4))
    for path in (file, in_integers(file, (4, 8, 4))):
        found = kinds(optimised(path))
        assert found["BiasGelu"] + found["FastGelu"] == 1
        assert not {"Erf", "Tanh", "Pow", "Gelu"} & set(found)


@FORMS
def test_gelu_between_convolutions_keeps_their_layout(approximate: str, tmp_path: Path) -> None:
    layers = [nn.Conv2d(3, 32, 3), nn.GELU(approximate), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    graph = optimised(written(nn.Sequential(*layers), tmp_path / "model.onnx", (3, 8, 8)))
    assert kinds(graph)["Gelu"] == 1
    assert not left_over(graph)


@pytest.mark.parametrize("arch", ["test_vit", "test_convnext"])
def test_every_gelu_of_a_family_is_fused(arch: str, tmp_path: Path) -> None:
    model = create_backbone(arch, 10, (3, 32, 32)).eval()
    graph = optimised(written(model, tmp_path / "model.onnx", (3, 32, 32)))
    activations = sum(type(module).__name__.startswith("GELU") for module in model.modules())
    assert sum(kinds(graph)[name] for name in FUSED) == activations > 0
    assert "GELU in parts" not in left_over(graph)


class Residual(nn.Module):
    """A block whose sum is followed by an activation."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.inner, self.outer = activation(), activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(x + self.second(self.inner(self.first(x))))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_activations_stay_in_integers(activation: Callable[[], nn.Module], tmp_path: Path) -> None:
    stem = [nn.Conv2d(3, 16, 3), activation()]
    head = [nn.Conv2d(16, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    model = nn.Sequential(*stem, Residual(activation), Residual(activation), *head)
    graph = optimised(in_integers(written(model, tmp_path / "model.onnx", (3, 12, 12)), (3, 12, 12)))
    found = kinds(graph)
    assert found["QLinearConv"] == 6
    assert found["QLinearAdd"] == 2
    assert found["Relu"] + found["Clip"] == 0
    assert found["QuantizeLinear"] + found["DequantizeLinear"] <= 4
    assert set(detours(graph, "DequantizeLinear", "QuantizeLinear")) <= {
        "GlobalAveragePool",
        "GlobalAveragePool Flatten",
    }


def test_products_of_a_sequence_give_floats_to_what_follows(tmp_path: Path) -> None:
    file = in_integers(written(Tokens(nn.GELU()), tmp_path / "model.onnx", (4, 8, 4)), (4, 8, 4))
    found = kinds(optimised(file))
    assert found["MatMulIntegerToFloat"] == 2
    assert found["QLinearMatMul"] == found["DequantizeLinear"] == 0


@pytest.mark.parametrize("opset", [18, OPSET])
def test_a_version_of_the_operators_is_honoured(opset: int, tmp_path: Path) -> None:
    file = written(
        nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.GELU()), tmp_path / "a.onnx", (3, 4, 4), opset=opset
    )
    assert [entry.version for entry in onnx.load(file).opset_import] == [opset]


@pytest.mark.parametrize("opset", [12, 99])
def test_a_version_that_cannot_be_written_is_refused(opset: int, tmp_path: Path) -> None:
    """PyTorch's exporter 2.15 writes 18 for both."""
    with pytest.raises(UserError, match=f"cannot write opset {opset} of ONNX, it wrote 18"):
        write_onnx(nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).eval(), tmp_path / "a.onnx", (3, 4, 4), {}, opset)
    assert not list(tmp_path.iterdir())


class Tied(nn.Module):
    """One matrix, used on a sequence, on vectors, and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 5)
        self.again.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images.flatten(2)).relu()
        x = linear(x, self.first.weight.T).mean(1)
        return self.head(self.again(x).relu())


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    model = Tied()
    file = written(model, tmp_path / "model.onnx", (4, 8, 8))
    onnx.checker.check_model(onnx.load(file), full_check=True)
    matrices = [tensor.dims for tensor in onnx.load(file).graph.initializer if len(tensor.dims) == 2]
    assert sum(map(math.prod, matrices)) == sum(p.numel() for p in model.parameters() if p.ndim == 2)


def test_a_map_that_leaves_the_blocked_layout_is_listed(tmp_path: Path) -> None:
    layers = [nn.Conv2d(3, 32, 3), nn.Mish(), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    graph = optimised(written(nn.Sequential(*layers), tmp_path / "model.onnx", (3, 8, 8)))
    if not is_blocked(graph):
        pytest.skip("this processor has no blocked kernels")
    assert left_over(graph)["Mish in parts"] == 1
    assert any(what.startswith("blocked layout left for: ") for what in left_over(graph))
