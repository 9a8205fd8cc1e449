"""Every form of a layer computes the same function, and the one that is written is the one its target runs fastest."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from layer_shapes import layers as common_layers
from make_run import make_run
from torch import nn

from zoo.errors import UserError
from zoo.export import latency_measured as measured_cost
from zoo.export import whole_graph
from zoo.export.choice import Choice, apply_forms, choose_forms
from zoo.export.export_report import lines
from zoo.export.exporter import export_model
from zoo.export.forms import DENSE, Form, Geometry, Op, candidates, geometry, write_as
from zoo.export.latency_measured import MeasuredCost
from zoo.export.latency_model import estimated_cost
from zoo.export.onnx_file import write_onnx
from zoo.export.settings import ExportSettings
from zoo.export.target import Target, open_target
from zoo.export.whole_graph import CHOSEN, DENSE_FP32, MERGED, PADDED, TRAINED, alternatives, fastest, overruled
from zoo.latency import session
from zoo.latency.cache import TimeCache
from zoo.latency.measure import Latency, Timing
from zoo.lowrank.chain import FactorChain
from zoo.lowrank.factorize import factorize, fold
from zoo.lowrank.layers import FactorizedConv2d, FactorizedLinear
from zoo.runs.file_metadata import Metadata

no_cuda = pytest.mark.skipif(session.cuda_devices() > 0, reason="there is a GPU")


def pair_of(conv: nn.Conv2d, rank: int) -> FactorChain:
    """A pair that computes exactly what a convolution of that rank computes."""
    pair = FactorizedConv2d(conv, rank).fold()
    assert isinstance(pair, FactorChain)
    return pair


def conv_of(weight: torch.Tensor, **geometry: object) -> nn.Conv2d:
    n, c, kh, kw = weight.shape
    conv = nn.Conv2d(c, n, (kh, kw), **geometry)
    conv.weight = nn.Parameter(weight)
    return conv


def problem_of(pair: FactorChain, shape: tuple[int, ...]) -> Geometry:
    problem = geometry(pair, shape)
    assert problem is not None
    return problem


def macs_of(model: nn.Module, x: torch.Tensor) -> int:
    """Multiply-accumulates, counted by PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


GEOMETRIES = [{"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"dilation": 2, "padding": 2}, {"stride": (1, 2)}]


@pytest.mark.parametrize("options", GEOMETRIES)
@pytest.mark.parametrize("split", ["kxk to 1x1", "1x1 to kxk", "kx1 to 1xk"])
def test_forms_compute_the_same(options: dict, split: str) -> None:
    """The kernel is a product in all three ways, so that all forms are candidates."""
    column, row = torch.randn(24, 2, 3, 1), torch.randn(24, 2, 1, 3)
    weight = (column * row).sum(1, keepdim=True) * torch.eye(2, 8)[torch.arange(24) % 2][:, :, None, None]
    pair, x = pair_of(conv_of(weight, **options), 24 - 8), torch.randn(2, 8, 11, 12)
    with torch.no_grad():
        pair[0].weight.copy_(torch.cat([weight[:8], weight[:8]])[: pair[0].weight.shape[0]])
    problem = problem_of(pair, x[:1].shape)
    found = candidates(pair, problem, 16)
    chosen = [form for form in found if form.split == split]
    assert chosen
    for form in chosen:
        written = write_as(pair, form)
        torch.testing.assert_close(written(x), pair(x), atol=1e-5 * pair(x).abs().max().item(), rtol=0)
        assert sum(p.numel() for p in written.parameters() if p.ndim == 4) == problem.weights(form)
        assert macs_of(written, x[:1]) == problem.macs(form)


def test_a_trained_kernel_has_two_exact_forms_and_its_padding() -> None:
    pair = pair_of(nn.Conv2d(48, 48, 3, padding=1), 10)
    problem = problem_of(pair, (1, 48, 8, 8))
    assert candidates(pair, problem, 16) == [Form("kxk to 1x1", 10), Form("kxk to 1x1", 16), DENSE]
    assert candidates(pair, problem, 8) == [Form("kxk to 1x1", 10), Form("kxk to 1x1", 16), DENSE]
    assert candidates(pair_of(nn.Conv2d(48, 48, 3), 16), problem, 16) == [Form("kxk to 1x1", 16), DENSE]


def test_dead_input_channels_open_a_cheaper_form() -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1)
    with torch.no_grad():
        conv.weight[:, 4:] = 0
    pair = pair_of(conv, 36)
    problem = problem_of(pair, (1, 64, 8, 8))
    assert Form("1x1 to kxk", 4) in candidates(pair, problem, 16)
    assert problem.macs(Form("1x1 to kxk", 4)) < problem.macs(Form("kxk to 1x1", 36))


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_padding_and_merging_change_nothing(kind: str) -> None:
    if kind == "conv":
        pair, x = pair_of(nn.Conv2d(20, 30, 3, stride=2, padding=1), 5), torch.randn(2, 20, 9, 9)
    else:
        pair, x = FactorizedLinear(nn.Linear(20, 30), 5).fold(), torch.randn(2, 7, 20)
    assert isinstance(pair, FactorChain)
    for form in candidates(pair, problem_of(pair, (1, *x.shape[1:])), 8):
        written = write_as(pair, form)
        torch.testing.assert_close(written(x), pair(x), atol=1e-5, rtol=1e-4)
        assert written.weight.shape == pair.weight.shape or form != DENSE
        assert written.bias is not None


def target_with(costs: dict[str, float]) -> Target:
    return Target("cpu", 16, lambda problem, forms: [costs[str(form)] for form in forms], 1)


def test_the_fastest_form_is_chosen_and_the_smallest_of_equals() -> None:
    pair = pair_of(nn.Conv2d(48, 48, 3, padding=1), 10)
    names = ["kxk to 1x1, rank 10", "kxk to 1x1, rank 16", "dense"]
    cases = {
        (2.0, 1.0, 3.0): Form("kxk to 1x1", 16),
        (2.0, 2.0, 1.0): DENSE,
        (1.01, 1.0, 1.0): Form("kxk to 1x1", 10),
    }
    for costs, expected in cases.items():
        chosen = choose_forms(nn.Sequential(pair), (48, 8, 8), target_with(dict(zip(names, costs, strict=True))))["0"]
        assert chosen.form == expected
        assert list(chosen.costs) == names
        assert chosen.reason


def test_a_layer_whose_weight_the_model_reads_itself_stays() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = FactorizedLinear(nn.Linear(32, 64, bias=False), 4).fold()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x.flatten(1), self.qkv.weight)

    choice = choose_forms(Reads(), (2, 4, 4), open_target())["qkv"]
    assert choice.form == choice.trained
    assert "reads its weight itself" in choice.reason


def test_a_shared_layer_is_replaced_wherever_it_stands() -> None:
    pair = pair_of(nn.Conv2d(16, 16, 3, padding=1), 4)
    model = nn.Sequential(pair, nn.ReLU(), pair)
    dense = apply_forms(model, {"0": DENSE})
    assert dense[0] is dense[2]
    assert isinstance(dense[0], nn.Conv2d)
    assert isinstance(model[0], FactorChain)


def test_whole_graphs_overrule_the_layers() -> None:
    factors, padded = Form("kxk to 1x1", 10), Form("kxk to 1x1", 16)
    costs = {str(factors): 2.0, str(padded): 1.0, "dense": 3.0}
    choices = {"a": Choice(padded, factors, "faster", costs), "b": Choice(factors, factors, "unknown", {})}
    graphs = alternatives(choices)
    assert list(graphs) == [CHOSEN, TRAINED, MERGED]
    assert graphs[MERGED] == {"a": DENSE, "b": factors}
    assert fastest({1: {CHOSEN: 1.0, TRAINED: 0.99, MERGED: 1.2}}) == CHOSEN
    assert fastest({1: {CHOSEN: 1.0, TRAINED: 1.1, MERGED: 0.8}}) == MERGED
    merged = overruled(choices, MERGED, {1: {CHOSEN: 1.0, TRAINED: 1.1, MERGED: 0.8}})
    assert merged["a"].form == DENSE
    assert "0.80 of the time all dense, batch 1" in merged["a"].reason
    assert merged["b"] == choices["b"]


def test_padding_that_gains_little_in_each_layer_is_tried_on_the_whole_graph() -> None:
    factors, padded = Form("kxk to 1x1", 10), Form("kxk to 1x1", 16)
    choices = {
        "a": Choice(factors, factors, "the fewest weights of equals", {str(factors): 1.01, str(padded): 1.0}),
        "b": Choice(factors, factors, "unknown", {}),  # no other form is known
    }
    graphs = alternatives(choices, block=16)
    assert list(graphs) == [CHOSEN, PADDED]
    assert graphs[PADDED] == {"a": padded, "b": factors}
    ratios = {1: {CHOSEN: 1.0, PADDED: 0.92}, 32: {CHOSEN: 1.0, PADDED: 0.95}}
    assert fastest(ratios) == PADDED
    assert fastest({1: {CHOSEN: 1.0, PADDED: 0.99}}) == CHOSEN, "a tie"
    found = overruled(choices, PADDED, ratios, block=16)
    assert found["a"].form == padded
    assert "0.92 of the time all padded, batch 1" in found["a"].reason
    assert found["b"] == choices["b"]


def test_no_graph_is_written_that_any_batch_shows_to_be_slower_than_dense() -> None:
    single = {CHOSEN: 1.0, TRAINED: 1.1, MERGED: 1.5, DENSE_FP32: 0.5}
    assert fastest({1: single, 32: {CHOSEN: 1.0, TRAINED: 2.0, MERGED: 0.99}}) == CHOSEN, "a tie"
    assert fastest({1: single, 32: {CHOSEN: 1.0, TRAINED: 0.8, MERGED: 0.9}}) == TRAINED
    slower = {1: single, 32: {CHOSEN: 1.0, TRAINED: 1.0, MERGED: 0.9}}
    assert fastest(slower) == MERGED
    assert fastest({1: {CHOSEN: 1.0, TRAINED: 0.5}, 32: {CHOSEN: 1.0, TRAINED: 1.5}}) == CHOSEN, "which is all dense"
    factors = Form("kxk to 1x1", 10)
    choices = {"a": Choice(factors, Form("kxk to 1x1", 9), "faster", {str(factors): 2.0, "dense": 3.0})}
    assert "0.90 of the time all dense, batch 32" in overruled(choices, MERGED, slower)["a"].reason


@pytest.mark.parametrize(("ratio", "turns"), [(0.8, [4]), (0.95, [4, 12]), (1.05, [4, 12])])
def test_a_graph_close_to_the_dense_one_has_three_times_the_turns(
    ratio: float, turns: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measure(files: list[Path], *, batches: tuple[int, ...], rounds: int, **options: object) -> list[Timing]:
        asked.append(rounds)
        times = [{batches[0]: Latency.of(batches[0], [[time]] * rounds)} for time in (ratio, 1.0)]
        return [Timing(latency, 0.0) for latency in times]

    monkeypatch.setattr(whole_graph, "measure", measure)
    found = whole_graph._measure([Path("chosen"), Path("dense")], open_target("cpu", 1), 1, rounds=4, dense=1)
    assert found == pytest.approx([1.0, 1 / ratio])
    assert asked == turns


def test_int8_for_this_processor_is_timed_beside_the_dense_graph_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way of ``--target cpu``: layers, graphs at two batch sizes, what is written, and the second time."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(whole_graph, "ROUNDS", {1: 1, 32: 1})
    monkeypatch.setattr(measured_cost, "ROUNDS", 2)
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = fold(factorize(nn.Sequential(*layers, nn.Linear(64, 10)), {"2": 9})).eval()
    metadata = Metadata.of(make_run(tmp_path / "run").card)
    settings = ExportSettings("cpu", "int8", threads=1, calibration=20, n=20, max_drop=100)
    done = export_model(model, metadata, tmp_path / "a.onnx", settings)
    assert list(done.graphs) == [1, 32]
    assert done.graphs[1].keys() == done.graphs[32].keys()
    target = open_target("cpu", threads=1)
    measured = choose_forms(model, metadata.image_shape, target)  # from the cache, before a whole graph overruled them
    assert done.graphs[1].keys() == {*alternatives(measured, target.block), DENSE_FP32}
    assert all(ratio > 0 for at in done.graphs.values() for ratio in at.values())
    assert done.graphs[1][CHOSEN] == 1
    assert DENSE_FP32 in done.graphs[1]
    said = "\n".join(lines(done))
    assert re.search(r"of the time that it takes with all layers dense in fp32, batch 1; \d+\.\d\d, batch 32", said)
    assert session.OnnxModel(tmp_path / "a.onnx", "cpu").metadata.precision == "int8"
    monkeypatch.setattr(whole_graph, "measure", None)
    assert export_model(model, metadata, tmp_path / "b.onnx", settings).graphs == done.graphs


def test_nothing_is_compared_where_forms_agree() -> None:
    assert list(alternatives({})) == [CHOSEN]
    dense = Choice(DENSE, Form("kxk to 1x1", 3), "", {"dense": 1.0})
    assert list(alternatives({"a": dense})) == [CHOSEN, TRAINED]


def test_times_are_kept_and_damage_counts_as_empty(tmp_path: Path) -> None:
    cache = TimeCache("cpu", 2, tmp_path)
    assert cache.get("layer", 2) is None
    cache.put("layer", [1.0, 2.5])
    cache.put("other", [3.0])
    assert TimeCache("cpu", 2, tmp_path).get("layer", 2) == [1.0, 2.5]
    assert TimeCache("cpu", 1, tmp_path).get("layer", 2) is None
    assert cache.get("layer", 3) is None
    good = cache.path.read_text()
    content = json.loads(good)
    for bad in (
        good[: len(good) // 2],
        "[]",
        "null",
        json.dumps({**content, "conditions": {}}),
        json.dumps({**content, "times": {"layer": [1.0, "x"]}}),
        json.dumps({**content, "times": {"layer": [1.0, -1.0]}}),
        json.dumps({**content, "times": [1]}),
    ):
        cache.path.write_text(bad)
        assert cache.get("layer", 2) is None
        cache.put("layer", [4.0, 5.0])
        assert cache.get("layer", 2) == [4.0, 5.0]
    assert [file.name for file in tmp_path.iterdir()] == [cache.path.name]


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TimeCache("cpu", 2, tmp_path / "file")
    cache.put("layer", [1.0])
    assert cache.get("layer", 1) is None


def test_a_layer_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Geometry("conv", Op(32, 32, (3, 3), padding=(1, 1)), (32, 32))
    forms = [Form("kxk to 1x1", 2), DENSE]
    measured = MeasuredCost("cpu", 1, TimeCache("cpu", 1, tmp_path))
    times = measured(problem, forms)
    assert 0 < times[0] < times[1]
    monkeypatch.setattr(measured, "_measure", None)
    assert measured(problem, forms) == times


def test_equal_files_wherever_the_target_is_generic(tmp_path: Path) -> None:
    convolutions = [nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*convolutions, nn.Linear(64, 10)).eval()
    model, metadata = fold(factorize(model, {"2": 30})), Metadata.of(make_run(tmp_path / "run").card)
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    done = [export_model(model, metadata, path) for path in files]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert done[0].metadata.target == "generic"
    assert done[0].metadata.forms.keys() == done[0].choices.keys()
    for entry in done[0].metadata.forms.values():
        assert {"split", "rank", "trained_rank", "reason", "costs"} == entry.keys()


def optimized_kinds(path: Path) -> Counter[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    options.log_severity_level = 4
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    if not any(node.domain == "com.microsoft.nchwc" for node in nodes):
        pytest.skip("this processor has no blocked kernels")
    return Counter(node.op_type for node in nodes)


def test_padding_keeps_the_graph_in_blocked_layout(tmp_path: Path) -> None:
    """A rank of 30 takes each second factor out of the blocked layout; padded to 32 it stays: no clock is needed."""
    convolutions = [layer for _ in range(3) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 64, 3), *convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))
    model = fold(factorize(model, {"1": 30, "3": 30, "5": 30})).eval()
    choices = choose_forms(model, (3, 16, 16), open_target("generic"))
    assert [choice.form.rank for choice in choices.values()] == [32, 32, 32]
    counts = []
    for name, form in (("trained", "trained"), ("chosen", "form")):
        forms = {layer: getattr(choice, form) for layer, choice in choices.items()}
        write_onnx(apply_forms(model, forms), tmp_path / f"{name}.onnx", (3, 16, 16), {})
        kinds = optimized_kinds(tmp_path / f"{name}.onnx")
        counts.append(kinds["ReorderInput"] + kinds["ReorderOutput"])
    assert counts[1] <= 2 < counts[0]


@no_cuda
def test_cuda_without_a_gpu_leaves_the_older_file(tmp_path: Path) -> None:
    run, path = make_run(tmp_path / "run"), tmp_path / "model.onnx"
    path.write_bytes(b"older")
    for precision in ("fp32", "fp16"):
        settings = ExportSettings(target="cuda", precision=precision)
        with pytest.raises(UserError, match="device 'cuda' cannot be used"):
            export_model(run.model(), Metadata.of(run.card), path, settings)
    assert path.read_bytes() == b"older"


def test_impossible_settings() -> None:
    with pytest.raises(UserError, match="fp16 is slower than fp32 on the target 'cpu'"):
        ExportSettings(precision="fp16")
    with pytest.raises(UserError, match="max-drop"):
        ExportSettings(max_drop=-1)
    with pytest.raises(UserError, match="calibration must be at least 1"):
        ExportSettings(calibration=0)
    with pytest.raises(UserError, match="unknown target 'tpu'"):
        open_target("tpu")  # type: ignore[arg-type]


def test_older_files_have_no_forms(tmp_path: Path) -> None:
    metadata = Metadata.of(make_run(tmp_path / "run").card)
    props = metadata.to_props()
    for name in ("target", "precision", "forms"):
        del props[name]
    assert Metadata.from_props(props) == metadata
    assert Metadata.from_props(replace(metadata, forms={"a": {"rank": 3}}).to_props()).forms == {"a": {"rank": 3}}


def test_estimates_grow_with_the_work() -> None:
    small = Geometry("conv", Op(64, 64, (3, 3), padding=(1, 1)), (8, 8))
    forms = [Form("kxk to 1x1", rank) for rank in (16, 32, 48)]
    costs = estimated_cost(small, [*forms, DENSE])
    assert costs == sorted(costs)
    assert all(a > b for a, b in zip(estimated_cost(replace(small, size=(16, 16)), forms), costs, strict=False))
    aligned, odd = estimated_cost(small, [Form("kxk to 1x1", 32), Form("kxk to 1x1", 31)])
    assert odd > aligned
    tiny = Geometry("conv", Op(16, 24), (4, 4))
    assert estimated_cost(tiny, [DENSE])[0] < estimated_cost(tiny, [Form("kxk to 1x1", 4)])[0]


@pytest.mark.slow
def test_the_cost_model_orders_forms_as_the_clock_does(tmp_path: Path) -> None:
    """Over layers of common networks: rank correlation, and the time lost by following the model."""
    measured = MeasuredCost("cpu", 1, TimeCache("cpu", 1, tmp_path))
    cases = [(estimated_cost(*case), measured(*case)) for case in common_layers()]
    estimates, times = (np.concatenate([np.array(case[i]) for case in cases]) for i in (0, 1))
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (estimates, times)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9
    regrets = [times[int(np.argmin(costs))] / min(times) - 1 for costs, times in cases]
    assert np.mean(regrets) < 0.1
