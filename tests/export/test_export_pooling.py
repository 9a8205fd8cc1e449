"""A mean over height and width is written as global pooling, and nothing else is."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from zoo.export import onnx_file
from zoo.export.onnx_file import write_onnx

SHAPE = (8, 6, 7)


class Applied(nn.Module):
    """A convolution, then a function of its map, flattened."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(8, 16, 3), function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.conv(images)).flatten(1)


def written(function: Callable[[Tensor], Tensor], path: Path) -> Counter[str]:
    """Write such a model, see that it answers as in PyTorch, and count its operators."""
    model = Applied(function).eval()
    write_onnx(model, path, SHAPE, {})
    images = torch.rand(3, *SHAPE)
    logits = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), model(images).detach(), rtol=1e-5, atol=1e-6)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    "mean",
    [
        nn.AdaptiveAvgPool2d(1),
        lambda x: x.mean((2, 3)),
        lambda x: x.mean((-1, -2), keepdim=True),
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    ],
)
def test_means_over_a_map_are_pooled(mean: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    kinds = written(mean, tmp_path / "a.onnx")
    assert kinds["GlobalAveragePool"] == 1
    assert kinds["ReduceMean"] == 0
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert {tensor.name for tensor in graph.initializer} <= {name for node in graph.node for name in node.input}


@pytest.mark.parametrize(
    "mean",
    [
        lambda x: x.mean(3),
        lambda x: x.mean((1, 2)),
        lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
        lambda x: x.flatten(2).mean(2),
        lambda x: x[:, :, None].mean((2, 3)),
    ],
)
def test_other_means_stay(mean: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    kinds = written(mean, tmp_path / "a.onnx")
    assert kinds["ReduceMean"] == 1
    assert kinds["GlobalAveragePool"] == 0


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 3, padding=1)
        self.gate = nn.Sequential(nn.Conv2d(64, 16, 1), nn.ReLU(), nn.Conv2d(16, 64, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.gate(x.mean((2, 3), keepdim=True))


def test_maps_stay_in_blocked_layout_before_a_pooling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), Gated(), Gated(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    reorders = []
    for name in ("pooled", "as_exported"):
        write_onnx(model, tmp_path / f"{name}.onnx", (3, 16, 16), {})
        options = ort.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(tmp_path / f"{name}.optimized.onnx"), 4
        ort.InferenceSession(tmp_path / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        if not any(node.domain == "com.microsoft.nchwc" for node in nodes):
            pytest.skip("this processor has no blocked kernels")
        reorders.append(sum(node.op_type.startswith("Reorder") for node in nodes))
        monkeypatch.setattr(onnx_file, "pool_globally", lambda proto: None)
    assert reorders[0] < reorders[1]
