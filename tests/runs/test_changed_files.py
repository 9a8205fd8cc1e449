"""Cards, configurations, indexes and metadata that are changed at random are read, or refused in one line."""

import json
from pathlib import Path

import pytest
import yaml
from changed_content import SEEDS, changed, damaged, examples, is_read_or_refused_in_one_line
from hypothesis import given

from zoo.hub.index import Index
from zoo.hub.search import BUNDLED
from zoo.report.latencies import read_timings
from zoo.runs.card import Card
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import read_config

CARD = next(iter(sorted(BUNDLED.glob("*/card.json"))))
INDEX = json.loads((BUNDLED / "index.json").read_text())
CONFIG = {
    "arch": "resnet18", "data": "digits", "seed": 0, "data_dir": None, "trainer": {"devices": 1},
    "method": {"name": "robust_lowrank", "tau": 0.1},
}  # fmt: skip
BENCH = {
    "device": "cpu", "cpu": "a", "threads": 2, "provider": "CPUExecutionProvider",
    "rows": [{"weights_sha256": "0", "bytes": 1, "latency": [{"batch": 1, "median_ms": 1.0, "p95_ms": 2.0}]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changed")


@given(SEEDS)
@examples(60)
def test_cards(folder: Path, seed: int) -> None:
    path = folder / "card.json"
    path.write_text(damaged(json.dumps(changed(json.loads(CARD.read_text()), seed)), seed))
    assert is_read_or_refused_in_one_line(lambda: Card.load(path))


@given(SEEDS)
@examples(60)
def test_indexes(seed: int) -> None:
    few = {**INDEX, "models": dict(list(INDEX["models"].items())[:3])}
    text = damaged(json.dumps(changed(few, seed)), seed)
    assert is_read_or_refused_in_one_line(lambda: Index.parse(text.encode(), "a hub"))


@given(SEEDS)
@examples(60)
def test_configurations_of_runs(folder: Path, seed: int) -> None:
    (folder / "config.yaml").write_text(damaged(yaml.safe_dump(changed(CONFIG, seed)), seed))
    assert is_read_or_refused_in_one_line(lambda: read_config(folder))


@given(SEEDS)
@examples(60)
def test_measured_times(folder: Path, seed: int) -> None:
    path = folder / "bench.json"
    path.write_text(damaged(json.dumps(changed(BENCH, seed)), seed))
    assert is_read_or_refused_in_one_line(lambda: read_timings([path]))


@given(SEEDS)
@examples(60)
def test_metadata_of_exported_files(seed: int) -> None:
    """What it is read as has the types that its fields say."""
    props = changed({k: json.loads(v) if v[:1] in ("[", "{") else v for k, v in PROPS.items()}, seed)
    texts = {k: damaged(v if isinstance(v, str) else json.dumps(v), seed) for k, v in props.items()}
    assert is_read_or_refused_in_one_line(lambda: check_types(Metadata.from_props(texts)), ValueError)


def check_types(found: Metadata) -> None:
    assert len(found.image_shape) == 3
    assert all(isinstance(side, int) for side in found.image_shape)
    assert all(isinstance(name, str) for name in found.class_names)


PROPS = Metadata.of(Card.load(CARD)).to_props()
