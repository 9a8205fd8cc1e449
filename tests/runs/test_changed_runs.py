"""RUN folders, hubs and exported files that are changed at random are used, or refused in one line.

What reads them must not only take or refuse their text: whatever it takes, it must be able to show and to run.
"""

import io
import json
import shutil
from pathlib import Path

import onnx
import pytest
import yaml
from changed_content import SEEDS, changed, damaged, examples, is_read_or_refused_in_one_line
from hypothesis import given
from PIL import Image
from rich.console import Console

from zoo.cli.bench import open_target
from zoo.evaluation import print_card, print_detection, print_findings
from zoo.export.exporter import export_model
from zoo.hub.folder import FolderHub
from zoo.hub.index import INDEX, Summary
from zoo.hub.search import BUNDLED, published
from zoo.hub.selection import Selection
from zoo.hub.table import models_table
from zoo.publishing.readme import readme
from zoo.report.figures import gather
from zoo.report.write import as_data, compose
from zoo.runs.card import Card
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run
from zoo.serving.serve import NotAnImage, classifier

MODEL = BUNDLED / "test_resnet.robust_lowrank50_digits"
CARD = json.loads((MODEL / "card.json").read_text())
CONFIG = {"arch": "test_resnet", "data": "digits", "seed": 0, "data_dir": None, "compression": 0.5, "init": None}
METRICS = "step,epoch,train/loss,val/accuracy\n0,0,1.5,\n1,0,1.2,0.5\n"
LAYERS = "epoch,layer,rank,condition_number\n0,fc,3,1.0\n1,fc,3,inf\n"
CONSOLE = Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RUN folder whose files are written anew for every example."""
    return Path(shutil.copytree(MODEL, tmp_path_factory.mktemp("changed") / "run"))


@pytest.fixture(scope="module")
def graph(folder: Path) -> onnx.ModelProto:
    run = Run(MODEL)
    return onnx.load(export_model(run.model(), Metadata.of(run.card), folder.parent / "model.onnx").path)


def text_of(content: object, seed: int) -> str:
    return damaged(json.dumps(changed(content, seed)), seed)


@given(SEEDS)
@examples(40)
def test_a_card_that_is_read_can_be_shown(folder: Path, seed: int) -> None:
    path = folder.parent / "card.json"
    path.write_text(text_of(CARD, seed))

    def show() -> None:
        card = Card.load(path)
        print_card(card, console=CONSOLE)
        print_findings(card.findings, CONSOLE)
        print_detection(card.detection, CONSOLE)
        Summary.of(card)
        readme(card)
        card.save(path)
        Card.load(path)

    assert is_read_or_refused_in_one_line(show)


@given(SEEDS)
@examples(30)
def test_an_index_that_is_read_can_be_listed(folder: Path, seed: int) -> None:
    index = json.loads((BUNDLED / INDEX).read_text())
    few = {**index, "models": dict(list(index["models"].items())[:4])}
    hub = folder.parent / "hub"
    hub.mkdir(exist_ok=True)
    (hub / INDEX).write_text(text_of(few, seed))

    def show() -> None:
        found = published(str(hub))
        for key in ("name", "params", "clean", "robust", "latency"):
            chosen = Selection(sort=key).of({name: model.entry for name, model in found.items()})
            CONSOLE.print(models_table({name: found[name] for name in chosen}))
        for name in found:
            if isinstance(found[name].hub, FolderHub) and found[name].hub.address == str(hub):
                found[name].folder()  # whose files are not there

    assert is_read_or_refused_in_one_line(show)


@given(SEEDS)
@examples(8)
def test_a_run_folder_can_be_opened_and_reported_on(folder: Path, seed: int) -> None:
    """One of its files is changed; the others are as a training leaves them."""
    texts = {
        "card.json": json.dumps(CARD),
        "config.yaml": yaml.safe_dump(CONFIG),
        "metrics.csv": METRICS,
        "layers.csv": LAYERS,
    }
    which = list(texts)[seed % 4]
    if which == "card.json":
        texts[which] = text_of(CARD, seed)
    elif which == "config.yaml":
        texts[which] = damaged(yaml.safe_dump(changed(CONFIG, seed)), seed)
    else:
        lines = [line.split(",") for line in texts[which].splitlines()]
        cells = changed(lines, seed)
        texts[which] = "\n".join(",".join(map(str, row)) if isinstance(row, list) else str(row) for row in cells)
    for name, text in texts.items():
        (folder / name).write_text(text)

    def use() -> None:
        run = Run(folder)
        run.model()
        _ = run.data_dir
        runs = gather([folder])
        compose(runs)
        json.dumps(as_data(runs), allow_nan=False)

    assert is_read_or_refused_in_one_line(use)


@given(SEEDS)
@examples(12)
def test_an_exported_file_is_opened_and_served(folder: Path, graph: onnx.ModelProto, seed: int) -> None:
    """Its metadata is changed: benchmarks take or refuse it, and the server answers or refuses to start."""
    props = {entry.key: entry.value for entry in graph.metadata_props}
    known = {key: json.loads(text) if text[:1] in ("[", "{") else text for key, text in props.items()}
    texts = {
        str(key): damaged(value if isinstance(value, str) else json.dumps(value), seed)
        for key, value in changed(known, seed).items()
    }
    proto = onnx.ModelProto()
    proto.CopyFrom(graph)
    del proto.metadata_props[:]
    for key, value in texts.items():
        proto.metadata_props.add(key=key, value=value)
    path = folder.parent / "changed.onnx"
    onnx.save(proto, path)
    assert is_read_or_refused_in_one_line(lambda: open_target(path))
    image = io.BytesIO()
    Image.new("L", (9, 7)).save(image, "PNG")

    def serve() -> None:
        answer = classifier(str(path), 1)
        assert set(answer(image.getvalue())) == {"class", "probabilities"}

    assert is_read_or_refused_in_one_line(serve, (SystemExit, NotAnImage))
