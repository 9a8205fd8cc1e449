"""ONNX Runtime answers as PyTorch does: every method, trained and cut, on several architectures at three batch sizes.

Run by `pytest -m slow --dist load tests/export/test_parity.py`; every run of the suite exports each method from one
architecture (tests/methods/test_methods.py).
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.export.exporter import export_model
from zoo.latency.session import OnnxModel
from zoo.methods import METHODS
from zoo.runs.file_metadata import Metadata

ARCHS = ("test_convnext", "test_efficientnet", "test_resnet", "test_vit", "mobilenetv2_100", "resnet18")
BATCHES = (1, 4, 19)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", [name for name in METHODS.names() if not METHODS.get(name).fine_tunes])
def test_an_exported_run_answers_as_in_pytorch(name: str, arch: str, train_tiny, tmp_path: Path) -> None:
    run = train_tiny(name, arch=arch, **({} if name == "dense" else {"compression": 0.5}))
    assert (run.card.params < 0.6 * run.card.dense_params) == (name != "dense")
    model = run.model()
    export_model(model, Metadata.of(run.card), tmp_path / "model.onnx")
    graph = OnnxModel(tmp_path / "model.onnx", "cpu")
    for batch in BATCHES:
        images = torch.rand(batch, *run.card.image_shape)
        with torch.no_grad():
            expected = model(images).numpy()
        assert np.abs(graph.logits(images.numpy()) - expected).max() <= 1e-4 * np.abs(expected).max()
