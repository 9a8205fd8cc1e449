import contextlib
import io
import json
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from make_run import CLASSES, make_run
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from zoo import cli
from zoo.backbone.fold_batch_norm import fold_batch_norm
from zoo.errors import UserError
from zoo.export import onnx_file
from zoo.export.choice import apply_forms
from zoo.export.exporter import export_model
from zoo.export.forms import Form
from zoo.export.onnx_file import write_onnx
from zoo.export.parity import LIMIT, check_parity
from zoo.latency.session import OnnxModel
from zoo.lowrank.chain import FactorChain
from zoo.lowrank.factorize import factorize, fold
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "run", compression=0.7, class_names=CLASSES)


@pytest.fixture(scope="module")
def printed(run: Run) -> str:
    """What `zoo export RUN` prints; the file is there then."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cli.run(["export", str(run.folder), "--target", "generic"])
    assert err.getvalue() == ""
    return out.getvalue()


@pytest.fixture(scope="module")
def path(run: Run, printed: str) -> Path:
    return run.folder / "model.onnx"


def test_graph_is_factorized(run: Run, path: Path) -> None:
    forms = OnnxModel(path, "cpu").metadata.forms
    chosen = {name: Form(entry["split"], entry["rank"]) for name, entry in forms.items()}
    folded = fold_batch_norm(apply_forms(run.model(), chosen), run.card.image_shape)
    graph = onnx.load(path).graph
    elements = sum(math.prod(tensor.dims) for tensor in graph.initializer)
    constants = 16  # mean, std and shapes
    assert sum(p.numel() for p in folded.parameters()) <= elements + constants
    assert elements <= sum(p.numel() for p in folded.parameters()) + constants
    assert elements < 0.55 * run.card.dense_params

    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["Conv"] == sum(isinstance(module, nn.Conv2d) for module in folded.modules())
    assert kinds["Gemm"] + kinds["MatMul"] == sum(isinstance(m, nn.Linear) for m in folded.modules())
    assert kinds["BatchNormalization"] == 0
    assert sum(isinstance(module, FactorChain) for module in folded.modules()) > 5


def test_metadata_round_trip(run: Run, path: Path) -> None:
    metadata = OnnxModel(path, "cpu").metadata
    assert replace(metadata, forms={}, graph_params=None, graph_macs=None) == Metadata.of(run.card)
    assert metadata.forms
    assert metadata.class_names == CLASSES
    assert metadata.weights_sha256 == run.card.weights.sha256
    assert metadata.ranks == run.card.ranks


def test_the_file_s_own_parameters_and_products_are_those_of_its_graph(run: Run, path: Path) -> None:
    """Counted in the graph for one image, with shapes that ONNX infers."""
    proto, metadata = onnx.load(path), OnnxModel(path, "cpu").metadata
    del proto.graph.value_info[:]
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert all(math.prod(shapes[node.output[0]]) > 0 for node in products)
    macs = sum(math.prod(shapes[n.output[0]]) * math.prod(weights[n.input[1]][1:]) for n in products)
    assert metadata.graph_macs == macs
    assert metadata.graph_macs != run.card.macs, "ranks are padded"
    assert metadata.graph_params == sum(math.prod(weights[name]) for n in products for name in n.input[1:])


def test_a_model_that_diverged_is_not_exported(run: Run, tmp_path: Path) -> None:
    model = run.model()
    with torch.no_grad():
        next(module for module in model.modules() if isinstance(module, FactorChain))[0].weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"\w holds values that are not finite: its training"):
        export_model(model, Metadata.of(run.card), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["[", "null", '"ten"', "[1, null]", '{"a": []}', "[" * 5000])
@pytest.mark.parametrize("field", ["class_names", "image_shape", "params", "ranks"])
def test_damaged_metadata(run: Run, field: str, text: str) -> None:
    props = Metadata.of(run.card).to_props()
    with pytest.raises(ValueError, match=f"an unreadable '{field}'"):
        Metadata.from_props({**props, field: text})


@pytest.mark.parametrize("batch", [1, 2, 3, 17])
def test_any_batch(run: Run, path: Path, batch: int) -> None:
    images = torch.rand(batch, *run.card.image_shape)
    with torch.no_grad():
        expected = run.model()(images).numpy()
    np.testing.assert_allclose(
        OnnxModel(path, "cpu").logits(images.numpy()), expected, atol=LIMIT * abs(expected).max()
    )


def test_command_says_what_it_wrote(run: Run, printed: str, path: Path) -> None:
    pairs = [name for name, module in run.model().named_modules() if isinstance(module, FactorChain)]
    report = json.loads(path.with_name("model.onnx.json").read_text())
    *layers, forms, sizes, parity, saved = printed.splitlines()
    assert list(report["layers"]) == pairs
    assert sum(1 + int((re.findall(r"and (\d+) more", line) or [0])[0]) for line in layers) == len(pairs)
    assert all("dense" in line and "cost" in line for line in layers)
    assert forms.startswith("forms estimated for any machine: ")
    assert f"{sum(layer['rank'] > 0 for layer in report['layers'].values())} factorized layers" in sizes
    assert "(batch 1)" in parity
    assert "(batch 5)" in parity
    assert saved == f"saved in {path}"


def test_file_tells_nothing_of_the_machine(path: Path) -> None:
    content = path.read_bytes()
    for telltale in (b"site-packages", b"stack_trace", b'File "', str(Path(__file__).parents[2]).encode()):
        assert telltale not in content


def test_factors_stay_in_blocked_layout(tmp_path: Path) -> None:
    """Ranks that are no multiple of the SIMD block make ONNX Runtime reorder around every second factor."""
    layers = [layer for _ in range(3) for layer in (nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 32, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    model = fold(factorize(model, {"1": 16, "3": 16, "5": 16}))
    write_onnx(model, tmp_path / "model.onnx", (3, 16, 16), {})

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    kinds = Counter(node.op_type for node in nodes)
    if not any(node.domain == "com.microsoft.nchwc" for node in nodes):
        pytest.skip("this processor has no blocked kernels")
    assert kinds["Conv"] == sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 7
    assert all(node.domain == "com.microsoft.nchwc" for node in nodes if "Conv" in node.op_type)
    assert kinds["ReorderInput"] + kinds["ReorderOutput"] <= 2


def test_difference_above_the_limit_is_an_error(run: Run, path: Path) -> None:
    model = run.model()
    assert max(check_parity(model, path, run.card.image_shape).values()) <= LIMIT
    with torch.no_grad():
        next(p for p in model.parameters() if p.ndim > 1).mul_(1.5)
    with pytest.raises(UserError, match=r"of the largest .*the limit is 1e-04"):
        check_parity(model, path, run.card.image_shape)


def test_not_a_number_is_above_the_limit(run: Run, path: Path) -> None:
    model = run.model()
    with torch.no_grad():
        next(p for p in model.parameters() if p.ndim > 1).fill_(float("nan"))
    with pytest.raises(UserError, match="by nan of the largest"):
        check_parity(model, path, run.card.image_shape)


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.linear(images.flatten(1))
        return x * 2 if float(x.sum()) > 0 else x


def test_failed_export_leaves_the_older_file(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    with pytest.raises(UserError, match="cannot be exported to ONNX: ") as caught:
        export_model(DataDependent().eval(), Metadata.of(run.card), path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert "".join(capfd.readouterr()) == ""


def test_failed_parity_leaves_the_older_file(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter is made to return the graph of other weights."""
    proto, target = onnx.load(path), tmp_path / "model.onnx"
    tensor = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
    tensor.CopyFrom(onnx.numpy_helper.from_array(1.5 * onnx.numpy_helper.to_array(tensor), tensor.name))
    monkeypatch.setattr(onnx_file, "_trace", lambda *_: proto)
    target.write_bytes(b"older")
    with pytest.raises(UserError, match="the limit is"):
        export_model(run.model(), Metadata.of(run.card), target)
    assert target.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_graph_with_more_weights_than_the_model_is_refused(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factors multiplied out, as an exporter that folds constants might do."""
    proto = onnx.load(path)
    tensor = max(proto.graph.initializer, key=lambda tensor: math.prod(tensor.dims))
    dense = np.zeros((4 * tensor.dims[0], *tensor.dims[1:]), np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(dense, tensor.name))
    monkeypatch.setattr(onnx_file, "_trace", lambda *_: proto)
    with pytest.raises(UserError, match="it is another model"):
        write_onnx(run.model(), tmp_path / "model.onnx", run.card.image_shape, {})
    assert not list(tmp_path.iterdir())


def test_truncated_file(path: Path, tmp_path: Path) -> None:
    short = tmp_path / "model.onnx"
    short.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="is not an ONNX file, or is truncated"):
        OnnxModel(short, "cpu")


class BiasedAttention(nn.Module):
    """Fused attention with a mask returns strides that the operators it is exported as do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head, self.bias = nn.Linear(8, 24), nn.Linear(8, 4), nn.Parameter(torch.rand(2, 8, 8))

    def forward(self, images: Tensor) -> Tensor:
        batch = images.shape[0]
        q, k, v = self.qkv(images[:, 0]).reshape(batch, 8, 3, 2, 4).permute(2, 0, 3, 1, 4)
        x = scaled_dot_product_attention(q, k, v, attn_mask=self.bias[None])
        return self.head(x.transpose(1, 2).reshape(batch, 8, 8).mean(1))


def test_attention_with_a_bias(run: Run, tmp_path: Path) -> None:
    done = export_model(BiasedAttention().eval(), Metadata.of(run.card), tmp_path / "model.onnx")
    assert max(done.parity.values()) <= LIMIT


def test_output_must_be_a_file(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        cli.run(["export", str(run.folder), "-o", str(tmp_path)])


def test_needs_no_lightning() -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "for name in ('latency', 'export', 'bench', 'serving'):\n"
        "    package = importlib.import_module('zoo.' + name)\n"
        "    for m in pkgutil.iter_modules(package.__path__): importlib.import_module(f'zoo.{name}.{m.name}')\n"
        "assert 'zoo.bench.benchmark' in sys.modules\n"
        "assert not [m for m in sys.modules if 'lightning' in m]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_of_which_a_part_is_in_training_mode_is_not_exported(run: Run, tmp_path: Path) -> None:
    model = DataDependent().eval()
    model.linear.train()
    with pytest.raises(UserError, match="linear of the model is in training mode"):
        export_model(model, Metadata.of(run.card), tmp_path / "model.onnx")
