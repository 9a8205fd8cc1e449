"""The resize in the graph is Pillow's at every size, in every runtime."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from zoo.serving.resize import Filter, GraphPart, resize

SIZES = [(32, 32), (160, 128)]
"""One group of outputs, the same on both axes; several, and not the same."""
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
Run = Callable[[np.ndarray], np.ndarray]


def graph(size: tuple[int, int], how: Filter, square: bool = False) -> bytes:
    """Return a graph of nothing but the resize: bytes (batch, height, width, 3) to levels."""
    part = GraphPart("resize/")
    floats = part.add("Cast", part.add("Transpose", "images", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    shape = part.add("Shape", "images", start=1, end=3)
    tall, wide = (part.add("Gather", shape, part.constant(i, np.int64)) for i in (0, 1))
    part.add("Identity", resize(part, floats, (tall, tall if square else wide), size, how), output="levels")
    given_ = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3])
    result = helper.make_tensor_value_info("levels", TensorProto.FLOAT, ["batch", 3, *size])
    content = helper.make_graph(part.nodes, "resize", [given_], [result], part.constants)
    model = helper.make_model(content, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def in_onnx_runtime(file: bytes) -> Run:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def pictures(height: int, width: int, seed: int) -> np.ndarray:
    """Two pictures: noise of all levels, and of black and white alone, whose edges overshoot."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.stack([noise, 255 * (rng.integers(0, 2, noise.shape, dtype=np.uint8))])


def by_pillow(images: np.ndarray, size: tuple[int, int], how: Filter) -> np.ndarray:
    resized = [np.asarray(Image.fromarray(image).resize(size[::-1], PILLOW[how])) for image in images]
    return np.stack(resized).transpose(0, 3, 1, 2).astype(np.float64)


EXTENT = st.one_of(st.integers(1, 40), st.integers(1, 400), st.integers(1, 4000))


@pytest.fixture(scope="module", params=[(size, how) for size in SIZES for how in PILLOW], ids=str)
def opened(request: pytest.FixtureRequest) -> tuple[Run, tuple[int, int], Filter]:
    size, how = request.param
    return in_onnx_runtime(graph(size, how)), size, how


@examples(max_examples=25, deadline=None)
@given(height=EXTENT, width=EXTENT, seed=st.integers(0, 99))
def test_levels_are_pillow_s(opened: tuple[Run, tuple[int, int], Filter], height: int, width: int, seed: int) -> None:
    """Pillow 13 takes the height first where that leaves fewer pixels for the width, which a central cut rules out."""
    run, size, how = opened
    height = min(height, max(1, size[0] * width // size[1]), max(1, 10**6 // width))
    images = pictures(height, width, seed)
    found, expected = run(images), by_pillow(images, size, how)
    assert abs(np.round(found) - expected).max() <= 1, "one level of 255"
    assert abs(found - expected).max() < 1.2, "half a level of the last rounding, and up to 5/8 of the first"


def test_a_square_part_needs_its_filters_once() -> None:
    files = [graph((160, 160), "bicubic", square=square) for square in (True, False)]
    assert len(files[0]) < 0.7 * len(files[1])
    images = pictures(301, 301, 0)
    np.testing.assert_array_equal(*(in_onnx_runtime(file)(images) for file in files))


def in_openvino(file: bytes) -> Run:
    core = pytest.importorskip("openvino").Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0]


def in_tract(file: bytes) -> Run:
    tract = pytest.importorskip("tract")
    with tempfile.NamedTemporaryFile(suffix=".onnx") as temporary:
        Path(temporary.name).write_bytes(file)
        model = tract.onnx().load(temporary.name).into_model().into_runnable()
    return lambda images: model.run([images])[0].to_numpy()


@pytest.mark.parametrize("other", [in_openvino, in_tract])
@pytest.mark.parametrize("size", SIZES)
def test_other_runtimes_agree(size: tuple[int, int], other: Callable[[bytes], Run]) -> None:
    """OpenVINO 2026.4 ignores ``antialias`` of the operator Resize: with it, levels differ by up to 140."""
    file = graph(size, "bicubic")
    here, there = in_onnx_runtime(file), other(file)
    for height, width in ((1, 1), (3, 201), (32, 31), (160, 128), (301, 190)):
        images = pictures(height, width, 1)
        assert abs(there(images) - here(images)).max() < 0.02
