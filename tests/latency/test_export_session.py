import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from zoo.errors import UserError
from zoo.export.forms import DENSE, Geometry, Op
from zoo.export.latency_measured import MeasuredCost
from zoo.latency import session
from zoo.latency.cache import TimeCache
from zoo.latency.session import INPUT, OUTPUT, OnnxModel, resolve_device

no_cuda = pytest.mark.skipif(session.cuda_devices() > 0, reason="there is a GPU")


def identity(path: Path, source: str, target: str) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2]) for name in (source, target)]
    node = helper.make_node("Identity", [source], [target])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(proto, path)
    return path


def error_of(path: Path, device: session.Device = "cpu") -> str:
    with pytest.raises(UserError) as caught:
        OnnxModel(path, device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    assert "no ONNX file at" in error_of(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x08\x0a\x12\xff\xff"])
def test_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "is not an ONNX file, or is truncated" in error_of(path)


def test_words_of_the_path_are_no_reason(tmp_path: Path) -> None:
    """A folder may be called after what else could be wrong."""
    path = tmp_path / "external" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"<html>")
    assert "is not an ONNX file, or is truncated (Protobuf parsing failed)" in error_of(path)


@pytest.mark.parametrize(("ir_version", "opset"), [(99, 18), (10, 99)])
def test_a_file_of_a_newer_onnx(tmp_path: Path, ir_version: int, opset: int) -> None:
    path = identity(tmp_path / "a.onnx", INPUT, OUTPUT)
    proto = onnx.load(path)
    proto.ir_version, proto.opset_import[0].version = ir_version, opset
    onnx.save(proto, path)
    assert "is of a newer ONNX than this ONNX Runtime" in error_of(path)


def test_an_invalid_graph(tmp_path: Path) -> None:
    path = identity(tmp_path / "a.onnx", INPUT, OUTPUT)
    proto = onnx.load(path)
    proto.graph.node[0].op_type = "Conv"
    onnx.save(proto, path)
    assert re.search(r"ONNX Runtime cannot open .*: This is an invalid model", error_of(path))


def test_foreign_names(tmp_path: Path) -> None:
    message = error_of(identity(tmp_path / "a.onnx", "x", "y"))
    assert "was not written by `zoo export`: it maps x to y" in message


def test_no_metadata(tmp_path: Path) -> None:
    assert "its metadata has no 'zoo_version'" in error_of(identity(tmp_path / "a.onnx", INPUT, OUTPUT))


def test_weights_in_another_file(tmp_path: Path) -> None:
    """They are lost, or cut short."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2]) for name in (INPUT, OUTPUT)]
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", [INPUT, "w"], [OUTPUT])], "g", values[:1], values[1:], [weight]
    )
    path = tmp_path / "a.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(proto, path, save_as_external_data=True, location="a.bin", size_threshold=0)
    (tmp_path / "a.bin").write_bytes(b"12")
    assert "keeps its weights beside it in a.bin, which is missing or too short" in error_of(path)
    (tmp_path / "a.bin").unlink()
    assert "keeps its weights beside it in a.bin, which is missing or too short" in error_of(path)


@pytest.mark.parametrize(("domain", "operator"), [("", "Sharpen"), ("my.operators", "my.operators:Sharpen")])
def test_operators_that_the_provider_lacks(tmp_path: Path, domain: str, operator: str) -> None:
    path = identity(tmp_path / "a.onnx", INPUT, OUTPUT)
    proto = onnx.load(path)
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Sharpen", domain
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    onnx.save(proto, path)
    assert f"has the operator {operator}, which CPUExecutionProvider of this ONNX Runtime lacks" in error_of(path)


def test_a_type_that_the_provider_lacks(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2]) for name in (INPUT, OUTPUT)]
    nodes = [
        helper.make_node("Cast", [INPUT], ["a"], to=TensorProto.INT16),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], [OUTPUT], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    assert re.search(r"has the operator (Relu|Max), which CPUExecutionProvider", error_of(path))


@no_cuda
def test_auto_is_the_cpu_without_a_gpu() -> None:
    assert resolve_device("auto") == "cpu"


@no_cuda
def test_cuda_without_a_gpu_is_an_error(tmp_path: Path) -> None:
    assert "device 'cuda' cannot be used" in error_of(identity(tmp_path / "a.onnx", INPUT, OUTPUT), "cuda")


@no_cuda
@pytest.mark.skipif("CUDAExecutionProvider" not in ort.get_available_providers(), reason="built without CUDA")
def test_a_session_that_falls_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "cuda_devices", lambda: 1)
    message = error_of(identity(tmp_path / "a.onnx", INPUT, OUTPUT), "auto")
    assert "would run it with CPUExecutionProvider, not CUDAExecutionProvider" in message
    measured = MeasuredCost("cuda", 1, TimeCache("cuda", 1, tmp_path / "times"))
    with pytest.raises(UserError, match="a layer: ONNX Runtime would run it with CPUExecutionProvider"):
        measured(Geometry("linear", Op(8, 8), (1, 1)), [DENSE])
    assert not (tmp_path / "times").exists()


def test_unknown_device() -> None:
    with pytest.raises(UserError, match="choose from auto, cpu, cuda"):
        resolve_device("tpu")  # type: ignore[arg-type]
