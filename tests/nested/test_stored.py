"""Every size of a stored nested network is a beginning of its file, and only that is downloaded."""

import shutil
from pathlib import Path

import pytest
import torch
from hub_server import FaultyServer
from make_nested_run import make_nested_run
from make_run import make_run
from safetensors.torch import load_file

from zoo.errors import UserError
from zoo.hub.index import Index
from zoo.hub.partial import download_size
from zoo.hub.search import Found
from zoo.lowrank.layers import Factorized, FactorizedLinear
from zoo.lowrank.shells import merge_shells, split_shells
from zoo.lowrank.tucker import TuckerConv2d
from zoo.nested.cut import cut, trained_sizes
from zoo.nested.stored import choose_prefix
from zoo.publishing.publish import entry_of
from zoo.publishing.rounding import store_weights
from zoo.runs.ordered_file import read_beginning, write_ordered
from zoo.runs.records import CurvePoint, Evaluation
from zoo.runs.run import CARD, Run, read_weights

NAME = "test_resnet.nested"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with a nested model whose sizes have statistics of their own."""
    folder = tmp_path_factory.mktemp("hub")
    run = make_nested_run(folder / "run")
    (folder / "hub" / NAME).mkdir(parents=True)
    weights, prefixes = store_weights(run, folder / "hub" / NAME, "float32")
    figure = Evaluation(attack="clean", norm=None, eps=0, accuracy=0.5, n=10)
    curve = (CurvePoint(compression=0.8, params=1, macs=1, evaluations=(figure,)),)
    run.card.model_copy(update={"weights": weights, "prefixes": prefixes, "curve": curve}).save(
        folder / "hub" / NAME / CARD
    )
    entry = entry_of(folder / "hub" / NAME)
    (folder / "hub" / "index.json").write_bytes(Index(models={NAME: entry}).to_json())
    return folder / "hub"


def found(place, hub: Path) -> Found:
    return Found(place, NAME, Index.parse((hub / "index.json").read_bytes(), "").models[NAME])


@pytest.mark.parametrize("kind", ["matrix", "tucker"])
def test_the_first_shells_are_the_prefix_of_the_components(kind: str) -> None:
    layer: Factorized = FactorizedLinear(torch.nn.Linear(20, 30), 12)
    if kind == "tucker":
        layer = TuckerConv2d(torch.nn.Conv2d(20, 30, 3), 12)
    state = {f"a.{name}": value.detach() for name, value in layer.state_dict().items()}
    shared, *shells = split_shells(state, {"a": [layer.ranks_at(rank) for rank in (3, 3, 7, 12)]})
    assert [*shared] == ["a.bias"]
    assert shells[1] == {}
    for count, rank in ((1, 3), (2, 3), (3, 7), (4, 12)):
        merged = merge_shells({key: value for shell in shells[:count] for key, value in shell.items()})
        r, s = layer.ranks_at(rank)
        assert torch.equal(merged["a.U"], state["a.U"][:, :r])
        assert torch.equal(merged["a.V"], state["a.V"][:, :s])
        assert torch.equal(merged["a.S"], state["a.S"][:r, :s])
    whole = merge_shells(shared | {key: value for shell in shells for key, value in shell.items()})
    assert whole.keys() == state.keys()


def test_an_ordered_file_is_a_safetensors_file_and_its_beginning_can_be_read(tmp_path: Path) -> None:
    parts = [
        {"a": torch.rand(3, 5), "b": torch.tensor(7), "c": torch.rand(3).half()},
        {"d": torch.rand(2, 2), "e": torch.zeros(0, 4)},
        {"f": torch.rand(7).half()},
    ]
    ends = write_ordered(parts, tmp_path / "file")
    loaded = load_file(tmp_path / "file")
    for name, value in (parts[0] | parts[1] | parts[2]).items():
        assert torch.equal(loaded[name], value)
    assert ends[-1] == (tmp_path / "file").stat().st_size
    for count, end in enumerate(ends, 1):
        (tmp_path / "beginning").write_bytes((tmp_path / "file").read_bytes()[:end])
        known = {name: value for part in parts[:count] for name, value in part.items()}
        read = read_beginning(tmp_path / "beginning")
        assert read.keys() >= known.keys()
        assert all(torch.equal(read[name], value) for name, value in known.items())
    (tmp_path / "beginning").write_bytes((tmp_path / "file").read_bytes()[: ends[0] - 1])
    assert len(read_beginning(tmp_path / "beginning")) == len(parts[0]) - 1
    (tmp_path / "beginning").write_bytes(b"no such file")
    with pytest.raises(UserError, match="not the beginning of a safetensors file"):
        read_beginning(tmp_path / "beginning")


def test_the_stored_run_is_the_run(hub: Path) -> None:
    run, x = Run(hub / NAME), torch.rand(2, 1, 8, 8)
    assert [prefix.compression for prefix in run.card.prefixes] == [*reversed(trained_sizes(run))]
    lengths = [prefix.bytes for prefix in run.card.prefixes]
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == run.card.weights.bytes
    original = Run(hub.parent / "run")
    torch.testing.assert_close(run.model()(x), original.model()(x))
    assert read_weights(hub / NAME / "model.safetensors").keys() == original.trained_model().state_dict().keys()


def test_a_size_is_fetched_by_one_range_and_is_the_cut_network(hub: Path, tmp_path: Path) -> None:
    server, x = FaultyServer(hub), torch.rand(2, 1, 8, 8)
    with server.running() as place:
        folder, fetched = download_size(found(place, hub), 0.8, tmp_path / "small")
    assert ("/test_resnet.nested/model.safetensors", f"bytes=0-{fetched - 1}") in server.requests
    assert fetched < 0.7 * (hub / NAME / "model.safetensors").stat().st_size
    run, whole = Run(folder), cut(Run(hub / NAME), 0.8)
    with torch.no_grad():
        torch.testing.assert_close(run.model()(x), whole.model(x), rtol=1e-3, atol=1e-4)
    assert run.card.method == "robust_lowrank"
    assert run.card.params == whole.card.params
    assert run.card.clean.accuracy == 0.5
    with pytest.raises(UserError, match="is there already"):
        download_size(found(place, hub), 0.8, tmp_path / "small")


def test_a_server_without_ranges_serves_too(hub: Path, tmp_path: Path) -> None:
    server = FaultyServer(hub, lambda path: "no ranges")
    with server.running() as place:
        assert Run(download_size(found(place, hub), 0.9, tmp_path / "small")[0]).card.compression >= 0.9


def test_a_corrupt_beginning_is_refused(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub, tmp_path / "hub")
    file = tmp_path / "hub" / NAME / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5000] ^= 1  # far behind the smallest size
    with FaultyServer(tmp_path / "hub").running() as place:
        file.write_bytes(content)
        assert Run(download_size(found(place, hub), 0.95, tmp_path / "spared")[0])
        content[20_000] ^= 1
        file.write_bytes(content)
        with pytest.raises(UserError, match="SHA-256"):
            download_size(found(place, hub), 0.9, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_size_that_is_not_stored_is_refused(hub: Path, tmp_path: Path) -> None:
    card = Run(hub / NAME).card
    with pytest.raises(UserError, match=r"is stored at the compressions 0\.507, .*, 0\.95: give one of them"):
        choose_prefix(card, NAME, 0.83)
    with pytest.raises(UserError, match=r"test_resnet\.x is stored as a whole"):
        choose_prefix(make_run(tmp_path / "plain").card, "test_resnet.x", 0.8)
