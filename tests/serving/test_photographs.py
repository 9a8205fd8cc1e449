"""A picture gets the same logits in training, graph and server, whichever way up the camera stored it."""

import io
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from make_run import make_run
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from zoo.data import open_data
from zoo.data._decode import TURNS, decode, rgb
from zoo.export.exporter import export_model
from zoo.runs.file_metadata import Metadata
from zoo.serving.preprocessing import embed_preprocessing
from zoo.serving.serve import NotAnImage, classifier, fitted, pixels

CLASSES = ("china", "flower")
SIDE = 32


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run, its graph, and its graph with preprocessing."""
    folder = tmp_path_factory.mktemp("photographs")
    run = make_run(folder / "run", image_shape=(3, SIDE, SIDE), data="imagefolder", class_names=CLASSES)
    found = {"run": run.folder}
    for name in ("plain", "preprocesses"):
        found[name] = export_model(run.model(), Metadata.of(run.card), folder / f"{name}.onnx").path
    embed_preprocessing(found["preprocesses"], run.model(), Metadata.of(run.card))
    return found


@pytest.fixture(scope="module", params=sorted(TURNS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trees of the same photographs: as a camera stored them, in JPEG with a tag, and upright in PNG."""
    turned, upright = tmp_path_factory.mktemp("turned"), tmp_path_factory.mktemp("upright")
    exif = Image.Exif()
    exif[0x0112] = request.param
    for split in ("train", "test"):
        for name in CLASSES:
            for folder in (turned, upright):
                (folder / split / name).mkdir(parents=True)
            photograph = Image.fromarray(np.array(load_sample_image(f"{name}.jpg"))).resize((80, 60))
            photograph.save(turned / split / name / "0.jpg", exif=exif, quality=90)
            with Image.open(turned / split / name / "0.jpg") as stored:
                stored.convert("RGB").transpose(TURNS[request.param]).save(upright / split / name / "0.png")
    return turned, upright


def logits(path: Path, images: NDArray) -> NDArray:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["logits"], {"images": images})[0]


def test_turned_and_upright_copies_get_the_same_logits(pair: tuple[Path, Path], graphs: dict[str, Path]) -> None:
    from zoo.runs.run import Run

    model, found = Run(graphs["run"]).model(), []
    for root, file in zip(pair, ("0.jpg", "0.png"), strict=True):
        path = root / "test/flower" / file
        for train in (True, False):
            source = open_data("imagefolder", data_dir=root, image_size=SIDE).source(train=train)
            images = source.fetch(torch.tensor([1]))
            with torch.no_grad():
                found.append(model(images.float() / 255).numpy())
        found.append(logits(graphs["plain"], images.float().div(255).numpy()))
        found.append(logits(graphs["preprocesses"], np.asarray(rgb(path))[None]))
        for graph in ("plain", "preprocesses"):
            answer = classifier(str(graphs[graph]), 1)(path.read_bytes())
            found.append(np.log(np.array([list(answer["probabilities"].values())])))
    in_training, in_evaluation, in_graph, decoded, served, served_decoded = zip(found[:6], found[6:], strict=True)
    for turned, upright in (in_training, in_evaluation, in_graph, decoded, served, served_decoded):
        assert np.array_equal(turned, upright)
    margins = [x[0, 0] - x[0, 1] for x, _ in (in_training, in_evaluation, in_graph, served)]
    np.testing.assert_allclose(margins, margins[0], rtol=1e-3, atol=1e-3)
    # Resized in the graph without rounding; see zoo.serving.preprocessing.
    np.testing.assert_allclose(decoded[0][0, 0] - decoded[0][0, 1], margins[0], rtol=0.05, atol=0.05)
    # As a check of this test: the pixels as they are stored get other logits.
    stored = np.asarray(Image.open(pair[0] / "test/flower/0.jpg"))[None]
    assert not np.allclose(logits(graphs["preprocesses"], stored), decoded[0], rtol=1e-3)


def files() -> dict[str, bytes]:
    """Images of every mode that a file may have."""
    photograph = Image.fromarray(np.array(load_sample_image("china.jpg"))).resize((70, 50))
    grey = Image.fromarray(np.asarray(photograph.convert("L")).astype(np.uint16) * 257)
    alpha = photograph.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    made: dict[str, tuple[Image.Image, str, dict]] = {
        "turned": (photograph, "JPEG", {"exif": exif}),
        "damaged tag": (photograph, "JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40}),
        "turned TIFF": (photograph, "TIFF", {"exif": exif}),
        "CMYK": (photograph.convert("CMYK"), "JPEG", {}),
        "16 bits": (grey, "PNG", {}),
        "palette": (photograph.quantize(16), "PNG", {"transparency": bytes([0, 100] + [255] * 14)}),
        "alpha": (alpha, "PNG", {}),
        "grey and alpha": (alpha.convert("LA"), "PNG", {}),
        "one bit": (photograph.convert("1"), "PNG", {}),
        "WebP": (alpha, "WEBP", {"lossless": True}),
    }
    found = {}
    for name, (image, kind, options) in made.items():
        file = io.BytesIO()
        image.save(file, kind, **options)
        found[name] = file.getvalue()
    return found


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(("name", "content"), files().items(), ids=list(files()))
def test_the_server_decodes_as_training_does(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    served = (fitted(pixels(content, 3), SIDE, SIDE) * 255).round().astype(np.uint8)
    assert np.array_equal(served, decode(path, SIDE))


def test_the_server_refuses_what_training_refuses() -> None:
    file = io.BytesIO()
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(file, "TIFF")
    with pytest.raises(NotAnImage, match="32 bits"):
        pixels(file.getvalue(), 3)


def test_the_lines_of_the_page_turn_images_too(pair: tuple[Path, Path], graphs: dict[str, Path], monkeypatch) -> None:
    page = (Path(__file__).parents[2] / "docs/serving.md").read_text()
    code = next(block for block in page.split("```python\n") if "ort.InferenceSession" in block).partition("```")[0]
    monkeypatch.chdir(graphs["run"])
    (graphs["run"] / "model-uint8.onnx").write_bytes(graphs["preprocesses"].read_bytes())
    found = []
    for root, file in zip(pair, ("0.jpg", "0.png"), strict=True):
        (graphs["run"] / "photo.jpg").write_bytes((root / "test/flower" / file).read_bytes())
        scope: dict = {}
        exec(code, scope)
        found.append(scope["logits"])
        assert scope["names"] == list(json.loads(json.dumps(CLASSES)))
    assert np.array_equal(*found)
