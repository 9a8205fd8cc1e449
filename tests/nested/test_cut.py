"""Networks cut out of a nested run: their size, their promises, their curve, and what is refused."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from make_nested_run import make_nested_run
from make_run import make_run

from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.export.exporter import GENERIC
from zoo.lowrank.sizes import size_applied
from zoo.nested.curve import parse_compressions
from zoo.nested.cut import cut, smaller_card, trained_sizes
from zoo.nested.latency_budget import cut_for_latency, parse_latency
from zoo.report.chart import Style
from zoo.report.figures import RunFigures
from zoo.report.size_curve import size_curve_blocks
from zoo.runs.records import CurvePoint, Evaluation
from zoo.runs.run import Run
from zoo.runtime.complexity import count_params


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nested_run(tmp_path_factory.mktemp("cut") / "run").folder


def test_a_trained_size_is_the_network_of_the_training(folder: Path) -> None:
    run, x = Run(folder), torch.rand(4, 1, 8, 8)
    for i, compression in enumerate(trained_sizes(run)[1:]):
        found = cut(run, compression)
        trained = run.trained_model()
        with torch.no_grad(), size_applied(trained, i):
            torch.testing.assert_close(found.model(x), trained(x), rtol=1e-3, atol=1e-4)
        assert found.images == 0
        assert found.card.compression >= compression
        assert found.card.params == count_params(found.model)
        assert found.card.evaluations == ()
        assert found.card.max_condition_number <= 1.1 * (1 + 1e-4)


def test_nothing_measured_on_the_whole_network_is_on_the_card_of_a_cut(folder: Path) -> None:
    card = Run(folder).card
    measured = {
        "evaluations", "sanity", "calibration", "findings", "latency", "parity", "curve", "prefixes", "files",
        "commands", "lipschitz_bound",
    }  # fmt: skip
    found = smaller_card(
        card.model_construct(**(dict(card) | dict.fromkeys(measured, "of the whole network"))),
        Run(folder).method, Run(folder).model(), card.ranks, {},
    )  # fmt: skip
    assert {name: getattr(found, name) or None for name in measured} == dict.fromkeys(measured)


def test_the_largest_network_is_the_run_s_own(folder: Path) -> None:
    run, x = Run(folder), torch.rand(4, 1, 8, 8)
    found = cut(run, 0.5)
    torch.testing.assert_close(found.model(x), run.model()(x), rtol=1e-4, atol=1e-5)
    assert found.card.params == run.card.params


def test_a_size_between_two_is_calibrated_on_training_images(folder: Path) -> None:
    found = cut(Run(folder), 0.72)
    assert found.images > 500
    assert 0.72 <= found.card.compression < 0.75


def test_only_a_size_between_two_needs_the_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args, **kwargs):
        raise UserError("digits are not there")

    monkeypatch.setattr("zoo.nested.recalibrate.open_known", missing)
    assert cut(Run(folder), 0.7).images == 0
    with pytest.raises(UserError, match=r"digits are not there \(BatchNorm needs training images, except at .*0\.7, "):
        cut(Run(folder), 0.72)


def test_a_cut_depends_on_nothing_drawn_before(folder: Path) -> None:
    """The search for the attacked images that BatchNorm sees begins at random points."""
    found = []
    for seed in (1, 2):
        run = Run(folder)
        attacked = {"adversary": "n_fgsm", "adversary_options": {"eps": 0.1}}
        run.card = run.card.model_copy(update={"training": run.card.training | attacked})
        torch.manual_seed(seed)
        found.append(cut(run, 0.72))
    assert found[0].images > 0
    first, second = (x.model.state_dict() for x in found)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(("compression", "nearest"), [(0.3, "0.5"), (0.99, "0.9")])
def test_a_compression_outside_the_trained_range_is_refused(folder: Path, compression: float, nearest: str) -> None:
    with pytest.raises(
        UserError, match=rf"compression {compression} is outside what run was trained for.*give {nearest}"
    ):
        cut(Run(folder), compression)


def test_a_run_that_is_not_nested_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "plain")
    for words in (["export"], ["evaluate", "--n", "20"]):
        with pytest.raises(
            UserError, match="plain was trained by lowrank for one size: --compression cuts networks of"
        ):
            zoo([*words, str(run.folder), "--compression", "0.8"])


def test_an_export_names_its_network(folder: Path, capsys: pytest.CaptureFixture) -> None:
    zoo(["export", str(folder), "--compression", "0.8", "--target", "generic"])
    shown = capsys.readouterr().out
    assert "BatchNorm statistics kept from the training" in shown
    props = {entry.key: entry.value for entry in onnx.load(folder / "model-0.8.onnx").metadata_props}
    found = cut(Run(folder), 0.8)
    assert int(props["params"]) == found.card.params
    assert json.loads(props["ranks"]) == found.card.ranks
    assert not (folder / "model.onnx").exists()


def test_a_latency_chooses_the_largest_network_that_meets_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(folder)
    monkeypatch.setattr("zoo.nested.latency_budget.median_ms", lambda found, settings: found.card.params / 1e5)
    sizes = [cut(run, compression).card.params for compression in trained_sizes(run)]
    for i, params in enumerate(sizes):
        found, time = cut_for_latency(run, params / 1e5, GENERIC)
        assert (found.card.params, time) == (sizes[i], sizes[i] / 1e5)
    with pytest.raises(UserError, match=r"the smallest network in run.*takes .* ms here: give a latency of"):
        cut_for_latency(run, sizes[-1] / 1e5 * 0.9, GENERIC)


@pytest.mark.parametrize("text", ["1.5", "ms", "0ms", "-1ms", "2s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    assert parse_latency(" 1.5 ms") == 1.5
    with pytest.raises(UserError, match=r"such as 1\.5ms"):
        parse_latency(text)


@pytest.mark.parametrize("text", ["", "a", "0.5;0.8", "0,0.5", "1"])
def test_what_is_no_list_of_compressions_is_refused(text: str) -> None:
    assert parse_compressions("0.9, 0.5") == [0.5, 0.9]
    with pytest.raises(UserError, match="shares to remove"):
        parse_compressions(text)


def test_the_curve_is_measured_drawn_and_kept(folder: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["evaluate", str(folder), "--n", "30", "--attacks", "fgsm", "--norms", "Linf", "--eps", "0.05"]
    zoo([*words, "--compression", "0.9,0.5"])
    curve = Run(folder).card.curve
    assert [point.compression for point in curve] == [0.5, 0.9]
    assert curve[0].macs > curve[1].macs
    assert [e.attack for e in curve[0].evaluations] == ["clean", "fgsm"]
    assert "0.9" in capsys.readouterr().out
    assert (folder / "curve.png").stat().st_size > 1000
    assert Run(folder).card.evaluations == ()
    for flag in (["--shard", "1/2"], ["--merge", "2"], ["--probes", "weights"]):
        with pytest.raises(UserError, match="does not go with --compression"):
            zoo([*words, "--compression", "0.9", *flag])


def test_points_of_one_network_are_merged(folder: Path) -> None:
    def figure(attack: str, accuracy: float) -> Evaluation:
        return Evaluation(attack=attack, norm=None, eps=0, accuracy=accuracy, n=10)

    first = CurvePoint(compression=0.9, params=5, macs=7, evaluations=(figure("clean", 0.5),), latency_ms=1.0)
    second = CurvePoint(compression=0.9, params=5, macs=7, evaluations=(figure("pgd", 0.2),))
    card = Run(folder).card.model_copy(update={"curve": ()})
    merged = card.with_curve_point(first).with_curve_point(second).curve
    assert [e.attack for e in merged[0].evaluations] == ["clean", "pgd"]
    assert merged[0].latency_ms == 1.0


def test_a_report_draws_the_curve_beside_networks_of_one_size(folder: Path, tmp_path: Path) -> None:
    figure = Evaluation(attack="clean", norm=None, eps=0, accuracy=0.5, n=10)
    points = [CurvePoint(compression=c, params=9, macs=int(1e6 / c), evaluations=(figure,)) for c in (0.5, 0.8)]
    nested = Run(folder).card.model_copy(update={"curve": tuple(points)})
    plain = make_run(tmp_path / "plain").card.model_copy(update={"evaluations": (figure,)})
    runs = [RunFigures("nested", Style(), nested), RunFigures("plain", Style(), plain)]
    _, gallery = size_curve_blocks(runs)
    (chart,) = gallery.charts
    assert [(series.name, series.kind) for series in chart.series] == [("nested", "line"), ("plain", "points")]
    assert chart.series[0].points == ((1.25, 0.5), (2.0, 0.5))
    assert size_curve_blocks(runs[1:]) == []
