import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_run import make_run
from rich.console import Console

from zoo import cli
from zoo.bench.benchmark import Settings
from zoo.bench.results import Row, table, tables
from zoo.cli.bench import open_target
from zoo.errors import UserError
from zoo.export.accuracy import Accuracy
from zoo.export.exporter import export_model
from zoo.export.parity import check_parity
from zoo.latency.measure import Latency, Timing, TimingProcess
from zoo.latency.session import OnnxModel, failed_run
from zoo.latency.timing import FEWEST, time_runs
from zoo.runs.checkpoint import Checkpoint
from zoo.runs.file_metadata import Metadata
from zoo.runs.records import Sanity
from zoo.runs.run import Run

QUICK = ["--rounds", "2", "--seconds", "0.01", "--batch-size", "4", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two runs of one architecture; the first has been exported."""
    folder = tmp_path_factory.mktemp("runs")
    first, second = (
        make_run(folder / "first", compression=0.7),
        make_run(folder / "second", method="dense", compression=None),
    )
    cli.run(["export", str(first.folder), "--target", "generic"])
    return first, second


def test_latency_of_times() -> None:
    fast = Latency.of(4, [[0.001, 0.001, 0.004], [0.002, 0.002, 0.002]])
    assert (fast.median_ms, fast.n, fast.images_per_second) == (2.0, 6, 2000.0)
    assert fast.round_ms == (1.0, 2.0)
    slow = Latency.of(4, [[0.004] * 3, [0.008] * 3])
    assert slow.ratio_to(fast) == 4.0
    assert slow.p95_ms == pytest.approx(8.0)


def test_every_round_has_some_runs() -> None:
    calls: list[int] = []
    assert len(time_runs(lambda: calls.append(0), 0.0)) == len(calls) == FEWEST


def test_timing_process(runs: tuple[Run, Run]) -> None:
    with TimingProcess(runs[0].folder / "model.onnx", "cpu", 1) as process:
        assert process.provider == "CPUExecutionProvider"
        assert all(0 < time < 10 for time in process.time(3, 0.01))
        process._process.kill()
        with pytest.raises(UserError, match="ended with code -9"):
            process.time(3, 0.01)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two processors and Linux"
)
def test_each_thread_of_a_timed_file_has_a_processor_of_its_own(runs: tuple[Run, Run]) -> None:
    usable = sorted(os.sched_getaffinity(0))
    with TimingProcess(runs[0].folder / "model.onnx", "cpu", 2) as process:
        process.time(3, 0.01)
        pid = process._process.pid
        assert os.sched_getaffinity(pid) == {usable[0]}
        threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
        assert any(os.sched_getaffinity(thread) == {usable[1]} for thread in threads)


@contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """Keep so many processes computing."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processor time of another process")
@pytest.mark.parametrize("beside", [0, 2], ids=["alone", "beside others"])
def test_threads_are_idle_when_another_file_has_its_turn(runs: tuple[Run, Run], beside: int) -> None:
    """ONNX Runtime's threads wait busily for some 50 ms after a run, on a shared processor for longer."""
    with busy_processes(beside), TimingProcess(runs[0].folder / "model.onnx", "cpu", 2) as process:
        stat = Path(f"/proc/{process._process.pid}/stat")

        def ticks() -> int:
            return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))

        used = []
        for _ in range(3):
            process.time(3, 0.01)
            before = ticks()
            time.sleep(0.2)
            used.append(ticks() - before)
        assert min(used) <= 1  # hundredths of a second


def test_timing_process_tells_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ONNX file at"):
        TimingProcess(tmp_path / "model.onnx", "cpu", 1)


def test_masked_gradients_are_flagged(
    runs: tuple[Run, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "masked"
    shutil.copytree(runs[0].folder, folder)
    run = Run(folder)
    sanity = Sanity(failures=("zero_gradients",), zero_gradient_share=1.0, accuracy_at_large_eps=0.9, n=40)
    run.save_card(run.card.model_copy(update={"sanity": sanity}))
    cli.run(["bench", str(folder), *QUICK, "--n", "0"])
    assert "gradient masking" in capsys.readouterr().out
    assert json.loads((folder / "bench.json").read_text())["rows"][1]["gradient_masking"] == ["zero_gradients"]


def test_square_alone(runs: tuple[Run, Run], tmp_path: Path) -> None:
    square = ["--attacks", "", "--square", "true", "--queries", "5", "--eps", "8/255"]
    cli.run(["bench", str(runs[0].folder), *QUICK, "--n", "10", *square, "--json", str(tmp_path / "b.json")])
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"][1:]
    assert [(x["attack"], x["eps"]) for x in row["accuracies"]] == [("clean", 0.0), ("square", 8 / 255)]


def test_two_runs(runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = runs
    square = ["--square", "true", "--queries", "5"]
    argv = ["bench", str(first.folder), str(second.folder), *QUICK, "--n", "40", "--eps", "0.1,8/255", *square]
    cli.run(argv)
    printed = capsys.readouterr().out
    assert printed.rstrip().splitlines()[-1] == f"saved in {first.folder / 'bench.json'}"
    assert "pgd Linf 8/255" in printed
    assert (second.folder / "model.onnx").is_file()

    result = json.loads((first.folder / "bench.json").read_text())
    assert result["provider"] == "CPUExecutionProvider"
    assert result["threads"] == 1
    assert result["cpu"]
    assert {"torch", "onnxruntime-gpu"} <= result["versions"].keys() or "onnxruntime" in result["versions"]
    dense, *rows = result["rows"]
    assert [row["name"] for row in (dense, *rows)] == ["test_resnet (dense)", "first", "second"]
    assert [row["dense_reference"] for row in (dense, *rows)] == [True, False, False]
    assert dense["params"] == first.card.dense_params
    assert dense["accuracies"] == []
    assert dense["theoretical_speedup"] == 1
    of_file = OnnxModel(first.folder / "model.onnx", "cpu").metadata
    assert (rows[0]["graph_params"], rows[0]["graph_macs"]) == (of_file.graph_params, of_file.graph_macs)
    assert rows[0]["theoretical_speedup"] == pytest.approx(first.card.dense_macs / rows[0]["graph_macs"])
    assert rows[0]["bytes"] == (first.folder / "model.onnx").stat().st_size
    assert rows[0]["bytes"] < 0.6 * dense["bytes"]
    assert rows[0]["macs"] == first.card.macs
    for row in (dense, *rows):
        assert [latency["batch"] for latency in row["latency"]] == [1, 4]
        for latency in row["latency"]:
            assert 0 < latency["median_ms"] <= latency["p95_ms"] <= latency["p99_ms"]
            share = latency["achieved_share_of_theoretical_speedup"]
            assert share * row["theoretical_speedup"] == pytest.approx(1 / latency["ratio_to_dense"])
            assert 0 < latency["memory_mb"] < 2000
            assert latency["n"] >= 2 * FEWEST
            assert latency["images_per_second"] == pytest.approx(1e3 * latency["batch"] / latency["median_ms"])
            assert latency["ratio_to_dense"] > 0
        assert 0 < row["start_ms"] < 60_000
    for row in rows:
        figures = [(x["attack"], x["norm"], x["eps"], x["n"]) for x in row["accuracies"]]
        linf = [("pgd", "Linf", 8 / 255, 40), ("pgd", "Linf", 0.1, 40)]
        direct = [("square", *figure[1:]) for figure in linf]
        assert figures == [("clean", None, 0.0, 40), *linf, *direct]
        assert all(x["accuracy"] <= row["accuracies"][0]["accuracy"] for x in row["accuracies"][3:])
        assert all(x["pytorch_accuracy"] is None for x in row["accuracies"][3:])
        for x in row["accuracies"][1:3]:
            assert x["accuracy"] == pytest.approx(x["pytorch_accuracy"], abs=0.051)
            assert x["options"]["steps"] == 10


def row_of(metadata: Metadata) -> Row:
    latency = Latency.of(1, [[0.001] * 3])
    return Row("a", "a.onnx", 1, metadata, Timing({1: latency}, 1.0), {1: 0.5})


def test_the_speed_up_is_that_of_the_graph_that_is_timed(runs: tuple[Run, Run]) -> None:
    """Half the time at a quarter of the graph's multiply-accumulates is half of what they promise."""
    metadata = replace(Metadata.of(runs[0].card), params=100, macs=10, dense_macs=200)
    assert row_of(metadata).achieved_share(1) == pytest.approx(0.1)
    merged = row_of(replace(metadata, graph_params=150, graph_macs=50))
    assert merged.theoretical_speedup == 4
    assert merged.achieved_share(1) == pytest.approx(0.5)
    cells = {label: cells for label, *cells in lines_of([row_of(metadata), merged])}
    assert cells["parameters"] == ["100", "150"]
    assert cells["parameters as trained"] == ["100", "100"]
    assert cells["MACs"] == ["10", "50"]
    assert cells["MACs as trained"] == ["10", "10"]
    assert not any("as trained" in label for label, *_ in lines_of([row_of(metadata)]))


def lines_of(rows: list[Row]) -> list[list[str]]:
    """The table's cells, line by line."""
    return [
        [str(cell).strip() for cell in line] for line in zip(*(c.cells for c in table(rows, ONE).columns), strict=True)
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_any_number_of_models_is_shown_whole(runs: tuple[Run, Run], width: int) -> None:
    """What does not fit beside the others goes into further tables, with the same lines."""
    console = Console(width=width, record=True, file=io.StringIO())
    metadata = [replace(Metadata.of(runs[0].card), graph_macs=123_456_000 + i) for i in range(9)]
    rows = [replace(row_of(m), name=f"model-{i}.onnx") for i, m in enumerate(metadata)]
    rows[8] = replace(rows[8], accuracies=(Accuracy("clean", None, 0.0, 0.75, None, 40, {}),))
    found = tables(rows, ONE, console)
    for each in found:
        console.print(each)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert all(f"123,456,00{i}" in text for i in range(9))
    assert "75.00%" in text
    assert len({tuple(t.columns[0].cells) for t in found}) == 1
    assert len(found) < 9
    assert (len(found) == 1) == (width == 200)


ONE = Settings(device="cpu", threads=1, batch_size="1")


def test_a_folder_in_place_of_the_result_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder: give a file name, such as --json"):
        cli.run(["bench", "nowhere", "--json", str(tmp_path)])


def test_file_without_its_run(runs: tuple[Run, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copy(runs[0].folder / "model.onnx", tmp_path / "stranded.onnx"))
    cli.run(["bench", str(path), *QUICK, "--n", "40", "--json", str(tmp_path / "out.json")])
    assert "no run of its weights beside the file" in capsys.readouterr().out
    row = json.loads((tmp_path / "out.json").read_text())["rows"][1]
    assert [x["attack"] for x in row["accuracies"]] == ["clean"]
    assert row["note"]

    images = np.zeros((2, *OnnxModel(path, "cpu").metadata.image_shape), np.float32)
    assert OnnxModel(path, "cpu").logits(images).shape == (2, 10)


@pytest.mark.parametrize("folders", [("a", "b"), ("x/a", "y/a")])
def test_files_of_one_name_are_told_apart(runs: tuple[Run, Run], tmp_path: Path, folders: tuple[str, str]) -> None:
    files = [tmp_path / folder / "model.onnx" for folder in folders]
    for file, run in zip(files, runs, strict=True):
        file.parent.mkdir(parents=True)
        shutil.copy(open_target(run.folder).path, file)
    cli.run(["bench", *map(str, files), *QUICK, "--n", "0", "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {f"{folder}/model.onnx" for folder in folders} <= {row["name"] for row in rows}


def test_file_of_other_weights(runs: tuple[Run, Run], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs[0].folder, tmp_path / "copy"))
    card = runs[0].card
    changed = card.model_copy(update={"weights": card.weights.model_copy(update={"sha256": "0"})})
    changed.save(copy / "card.json")
    with pytest.raises(UserError, match=r"other weights than the run has now: `zoo export .*` again"):
        cli.run(["bench", str(copy), *QUICK])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--threads", "0"], "threads must be at least 1"),
        (["--batch-size", "0"], "batch-size must be at least 1"),
        (["--batch-size", "8,many"], "give whole numbers"),
        (["--queries", "0"], "queries must be at least 1"),
        (["--eps", "1e400"], "eps"),
        (["--attacks", "pgg"], "did you mean pgd"),
        (["--norms", "L3"], "norm"),
        (["--device", "tpu"], "device"),
        (["--data-dir", "photos"], "digits is built in and has no files"),
    ],
)
def test_impossible_options(runs: tuple[Run, Run], argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cli.run(["bench", str(runs[0].folder), *argv])


def test_options_are_checked_before_a_published_model_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for argv, message in ((["--data-dir", "photos"], "has no files"), (["--runtime", "onnxrt"], "did you mean")):
        with pytest.raises(UserError, match=message):
            cli.run(["bench", "test_resnet.robust_lowrank50_digits", *argv])
    assert not any(tmp_path.iterdir())


def test_target_that_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        cli.run(["bench", str(tmp_path / "nothing")])
    with pytest.raises(UserError, match="no ONNX file at"):
        cli.run(["bench", str(tmp_path / "nothing.onnx")])


def test_a_batch_that_does_not_fit_in_memory(runs: tuple[Run, Run]) -> None:
    with pytest.raises(UserError, match=r"a batch of 100000000000 images does not fit in memory: choose a smaller"):
        cli.run(["bench", str(runs[0].folder), *QUICK, "--n", "0", "--batch-size", "100000000000"])


def test_memory_that_onnx_runtime_cannot_have() -> None:
    error = RuntimeError("bfc_arena.cc:376 Available memory of 0 is smaller: Failed to allocate memory for requested")
    assert "does not fit in memory: choose a smaller --batch-size" in failed_run(7, error)
    assert failed_run(7, ValueError("other")) == "a batch of 7 images cannot be run: other"


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of another process")
def test_memory_that_runs_out_while_a_file_is_timed(runs: tuple[Run, Run]) -> None:
    import resource

    with TimingProcess(runs[0].folder / "model.onnx", "cpu", 1) as process:
        assert process.time(1, 0.0)
        pages = int(Path(f"/proc/{process._process.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 2**28
        resource.prlimit(process._process.pid, resource.RLIMIT_AS, (limit, limit))
        with pytest.raises(UserError, match=r"a batch of 100000 images does not fit in memory: choose a smaller"):
            process.time(100_000, 0.0)


def test_images_that_the_graph_does_not_take(runs: tuple[Run, Run]) -> None:
    model = OnnxModel(runs[0].folder / "model.onnx", "cpu")
    with pytest.raises(UserError, match="a batch of 3 images cannot be run: "):
        model.logits(np.zeros((3, 1, 9, 9), np.float32))


@pytest.mark.slow
def test_baselines(runs: tuple[Run, Run], tmp_path: Path) -> None:
    """PyTorch's own exporter, int8 of the dense model and torch.compile stand beside the run."""
    result = tmp_path / "out.json"
    options = ["--baselines", "true", "--n", "0", "--batch-size", "2,4", "--json", str(result)]
    cli.run(["bench", str(runs[0].folder), *QUICK[:4], "--threads", "1", "--device", "cpu", *options])
    rows = {row["name"]: row for row in json.loads(result.read_text())["rows"]}
    kinds = ("dense", "torch.onnx.export", "dense int8", "torch.compile")
    assert list(rows) == [*(f"test_resnet ({kind})" for kind in kinds), "first"]
    assert all([latency["batch"] for latency in row["latency"]] == [1, 2, 4] for row in rows.values())
    assert rows["test_resnet (dense int8)"]["bytes"] < 0.5 * rows["test_resnet (dense)"]["bytes"]
    assert rows["test_resnet (torch.compile)"]["bytes"] == 0


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="must not be negative"):
        Settings(n=-1)


def test_a_checkpoint_is_measured_like_its_run(train_tiny) -> None:
    run = train_tiny("lowrank", compression=0.5)
    images = torch.rand(3, *run.card.image_shape)
    with torch.no_grad():
        torch.testing.assert_close(Checkpoint(run.folder / "last.ckpt").model()(images), run.model()(images))
    metadata = Checkpoint(run.folder / "last.ckpt").metadata()
    of_run = Metadata.of(run.card)
    same = ("arch", "method", "params", "macs", "dense_params", "dense_macs", "ranks", "class_names", "mean", "std")
    assert all(getattr(metadata, name) == getattr(of_run, name) for name in same)
    path = run.folder / "last.ckpt"
    export_model(Checkpoint(path).model(), metadata, path.with_suffix(".onnx"))
    target = open_target(path)
    assert (target.name, target.path) == ("run/last.ckpt", run.folder / "last.onnx")
    assert max(check_parity(run.model(), target.path, run.card.image_shape).values()) < 1e-4


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with pytest.raises(UserError, match="no checkpoint at"):
        cli.run(["bench", str(path)])
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"lies without its config\.yaml"):
        cli.run(["bench", str(path)])
    (tmp_path / "config.yaml").write_text("arch: test_resnet\n")
    with pytest.raises(UserError, match="is not a checkpoint of a training, or is damaged"):
        cli.run(["bench", str(path)])
    torch.save({"state_dict": {}, "ranks": {}}, path)
    for config in ("arch: test_resnet\n", "[", "3"):
        (tmp_path / "config.yaml").write_text(config)
        with pytest.raises(UserError, match=r"config\.yaml is damaged"):
            cli.run(["bench", str(path)])
    recipe = "arch: test_resnet\ndata: digits\nseed: 0\nmethod: {name: dense, no_such: 1}\n"
    (tmp_path / "config.yaml").write_text(recipe)
    with pytest.raises(UserError, match="has other options than no_such"):
        cli.run(["bench", str(path)])
