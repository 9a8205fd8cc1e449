"""The page of `zoo demo` shows what its networks answer, and is complete without a network."""

import base64
import json
import re
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from make_run import CLASSES, make_run

from zoo.cli import run as cli
from zoo.demo import Demo, write_demo
from zoo.demo.networks import Network
from zoo.demo.samples import moved
from zoo.demo.serve import server
from zoo.errors import UserError
from zoo.hub.runs import read_run
from zoo.latency.session import open_session
from zoo.serving.preprocessing import preprocess

NAME = "test_resnet.robust_lowrank50_digits"
RADIUS = 50


@pytest.fixture(scope="module")
def browser_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for onnxruntime-web where no browser runs."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "ort.wasm.min.mjs").write_text("export {};")
    return folder


@pytest.fixture(scope="module")
def page(browser_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.demo.write.onnxruntime_web", lambda source: browser_files)
        write_demo([NAME], Demo(folder, samples=4, radius=RADIUS, dense=False))
    return folder


@pytest.fixture(scope="module")
def figures(page: Path) -> dict:
    return json.loads((page / "demo.json").read_text())


def stored(text: str, kind: type, shape: list[int]) -> torch.Tensor:
    channels, height, width = shape
    return (
        torch.from_numpy(np.frombuffer(base64.b64decode(text), kind).copy())
        .view(height, width, channels)
        .permute(2, 0, 1)
    )


@given(st.integers(1, 127), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_stop_of_the_slider_changes_no_pixel_by_more(radius: int, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 4, 4), generator=generator).to(torch.uint8)
    delta = torch.randint(-radius, radius + 1, (2, 3, 4, 4), generator=generator).to(torch.int8)
    stop = round(share * radius)
    assert (moved(images, delta, stop, radius).int() - images.int()).abs().max() <= stop
    assert torch.equal(moved(images, delta, 0, radius), images)
    assert torch.equal(moved(images, delta, radius, radius), (images.int() + delta).clamp(0, 255).to(torch.uint8))


def test_samples_are_right_and_one_of_each_class(figures: dict) -> None:
    assert [sample["label"] for sample in figures["samples"]] == [0, 1, 2, 3]
    assert all(sample["slides"][0]["classes"][0] == sample["label"] for sample in figures["samples"])


def test_the_curve_is_what_the_network_answers_at_each_stop(figures: dict) -> None:
    model = read_run(NAME).model()
    for sample in figures["samples"]:
        pixels = stored(sample["pixels"], np.uint8, figures["image_shape"])
        (slide,) = sample["slides"]
        delta = stored(slide["delta"], np.int8, figures["image_shape"])
        along = torch.stack([moved(pixels, delta, stop, RADIUS) for stop in range(RADIUS + 1)])
        with torch.no_grad():
            shares = model(along.float() / 255).softmax(1)
        assert slide["classes"] == shares.argmax(1).tolist()
        assert torch.allclose(shares[:, sample["label"]], torch.tensor(slide["confidence"]), atol=2e-4)


def test_an_attack_finds_where_a_network_gives_way(figures: dict) -> None:
    ends = [sample["slides"][0]["classes"][-1] != sample["label"] for sample in figures["samples"]]
    assert sum(ends) >= 3  # at 50/255, thirty times the radius of its card


@pytest.mark.parametrize("size", [(8, 8), (31, 70)])
def test_pictures_are_prepared_as_before_an_evaluation(size: tuple[int, int], page: Path, figures: dict) -> None:
    pictures = torch.randint(0, 256, (1, *size, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    session = open_session(page / figures["preprocessing"], "cpu", 1)
    (pixels,) = session.run(["pixels"], {"images": pictures.numpy()})
    assert torch.allclose(torch.from_numpy(pixels), preprocess(pictures, tuple(figures["image_shape"])), atol=1e-5)


def test_the_folder_is_complete_and_asks_for_nothing_else(page: Path, figures: dict) -> None:
    sources = [file for file in page.iterdir() if file.suffix in (".html", ".js", ".css")]
    for file in sources:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn", text), file.name
        for named in re.findall(r'(?:src|href|from|fetch\()[= ]?"\.?/?([\w./-]+\.\w+)"', text):
            assert (page / named).is_file(), f"{file.name} asks for {named}"
    assert {"index.html", "demo.js", "demo.css", "style.css"} <= {file.name for file in sources}
    for network in figures["networks"]:
        assert (page / network["file"]).stat().st_size == network["bytes"]
    assert (page / figures["preprocessing"]).is_file()


def test_its_server_isolates_the_page(page: Path) -> None:
    with server(page, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{running.server_address[1]}/") as answer:
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
                assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
                assert answer.read() == (page / "index.html").read_bytes()
        finally:
            running.shutdown()


def test_what_cannot_be_shown_is_refused_before_any_work(tmp_path: Path) -> None:
    digits = make_run(tmp_path / "digits")
    coloured = make_run(tmp_path / "coloured", image_shape=(3, 8, 8))
    others = make_run(tmp_path / "others", class_names=CLASSES)
    deep = make_run(tmp_path / "deep", image_shape=(4, 8, 8))
    first = str(digits.folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    for targets, how, words in (
        (["test_resnet.robust_lowrank50_digit"], {}, "did you mean test_resnet.robust_lowrank50_digits"),
        ([first, first], {}, "is given twice"),
        ([first, str(coloured.folder)], {}, r"different pictures \(1 x 8 x 8 and 3 x 8 x 8\)"),
        ([first, str(others.folder)], {}, "have different classes: a page shows networks of one task"),
        ([str(deep.folder)], {}, "4 channels"),
        ([first], {"out": tmp_path / "mine"}, "is no page of zoo demo"),
        ([first], {"ort_web": tmp_path / "none.tgz"}, "no file or folder .*none.tgz: .*npm pack onnxruntime-web@"),
    ):
        with pytest.raises(UserError, match=words):
            write_demo(targets, Demo(**({"out": tmp_path / "demo"} | how)), say=lambda stage: None)
    for wrong in ({"samples": -1}, {"radius": 0}, {"radius": 128}):
        with pytest.raises(UserError, match="--radius must be 1 to 127"):
            Demo(**wrong)
    assert not (tmp_path / "demo").exists()
    assert (tmp_path / "mine/thesis.txt").exists()


def test_missing_data_are_named_and_leave_nothing(browser_files: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("zoo.demo.write.onnxruntime_web", lambda source: browser_files)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    run = make_run(tmp_path / "run", image_shape=(3, 32, 32), data="cifar10", class_names=names)
    unwritten = [Network("run", run, tmp_path / "run.onnx")]
    monkeypatch.setattr("zoo.demo.write.export_networks", lambda runs, folder: unwritten)
    with pytest.raises(UserError, match="nowhere"):
        cli(["demo", str(run.folder), "--data-dir", str(tmp_path / "nowhere"), "--out", str(tmp_path / "demo")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
