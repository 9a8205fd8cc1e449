"""The report: a whole page with nothing from elsewhere, true to the cards, safe whatever they hold."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
import torch
from html_page import EVIL, Elements, chromium
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from make_run import make_run

from zoo.callbacks import LayerHistory
from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.evaluation import condition_numbers
from zoo.probes import PROBES, ProbeContext
from zoo.report import Cell, Column, Page, Section, Table, Text, render
from zoo.report.cases import curves, reference
from zoo.report.chart import Axis, Chart, Heatmap, Series, Style
from zoo.report.export_forms import LayerForm, read_forms
from zoo.report.figures import RunFigures, gather, unique_names
from zoo.report.page import Details, Gallery
from zoo.report.pareto import pareto_front, steps
from zoo.report.png import draw_png
from zoo.report.scale import Scale
from zoo.report.sections.probes import probes
from zoo.report.sections.robustness import robustness
from zoo.report.sections.training import thinned
from zoo.report.spectra import singular_values, starting_model
from zoo.report.svg import draw
from zoo.report.write import compose
from zoo.runs.card import Card
from zoo.runs.records import Evaluation, Finding, LayerRow, Sanity
from zoo.runs.run import LAYERS, Run


def evaluations(shift: float) -> tuple[Evaluation, ...]:
    made = [Evaluation(attack="clean", norm=None, eps=0.0, accuracy=0.9 - shift, n=100)]
    for attack, options in (("fgsm", {}), ("pgd", {"steps": 10}), ("pgd", {"steps": 20})):
        made += [
            Evaluation(attack=attack, norm="Linf", eps=eps, accuracy=0.8 - shift - 20 * eps, n=100, options=options)
            for eps in (0.002, 0.01)
        ]
    parts = {"apgd": 0.5 - shift, "square": 0.4 - shift}
    return (*made, Evaluation(attack="autoattack", norm="L2", eps=0.5, accuracy=0.4 - shift, n=100, parts=parts))


def findings() -> tuple[Finding, ...]:
    moved = [
        Finding(
            probe="weights", case={"images": "clean", "eps": 0.0, "direction": d, "radius": r}, accuracy=0.9 - r, n=9
        )
        for d in ("random", "worst")
        for r in (0.0, 0.1)
    ]
    corrupted = [
        Finding(probe="corruptions", case={"corruption": c, "severity": s}, accuracy=0.9 - 0.1 * s, n=9)
        for c in ("snow", EVIL)
        for s in (1.0, 2.0)
    ]
    return (*moved, *corrupted, Finding(probe="interval", case={}, accuracy=None, n=9, note=EVIL))


def dress(run: Run, shift: float, masked: bool = False, **changes: object) -> Run:
    """Give a run what a training and an evaluation leave."""
    spectra = singular_values(run.trained_model())
    rows = [LayerRow(name=n, kind="Conv2d", shape=(8, 8), rank=len(v), note="", condition_number=v[0] / v[-1])
            for n, v in spectra.items()]  # fmt: skip
    failures = ("zero_gradients",) if masked else ()
    sanity = Sanity(failures=failures, zero_gradient_share=0.0, accuracy_at_large_eps=0.1, n=100)
    card = run.card.model_copy(
        update={"evaluations": evaluations(shift), "findings": findings(), "sanity": sanity, "layers": tuple(rows)}
        | {"training": {"epochs": 2, "seconds": 90.0}} | changes
    )  # fmt: skip
    run.save_card(Card.model_validate(card.model_dump()))
    config = {"arch": run.card.arch, "data": run.card.data, "method": {"name": run.card.method}}
    config |= {"seed": 0, "compression": 0.5, "weights": None}
    (run.folder / "config.yaml").write_text(json.dumps(config))
    (run.folder / "metrics.csv").write_text("step,epoch,loss,val_accuracy\n9,0,2.0,\n19,0,1.5,0.4\n")
    header = "epoch,step,layer,rank,condition_number\n"
    (run.folder / LAYERS).write_text(header + "0,0,conv1,4,1.5\n1,20,conv1,3,2.5\n")
    return run


def bench_json(run: Run, folder: Path) -> None:
    latency = [{"batch": 1, "median_ms": 1.25, "p95_ms": 1.5, "ratio_to_dense": 0.5}]
    row = {"weights_sha256": run.card.weights.sha256, "latency": latency, "bytes": 1000}
    result = {"device": "cpu", "provider": "CPUExecutionProvider", "cpu": EVIL, "threads": 2, "rows": [row]}
    (folder / "bench.json").write_text(json.dumps(result))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("report")
    first = dress(make_run(folder / "a" / "same"), 0.0)
    second = dress(make_run(folder / "b" / "same", method="robust_lowrank"), 0.1, masked=True)
    provenance = first.card.provenance.model_copy(update={"command": EVIL, "hardware": EVIL})
    third = dress(make_run(folder / EVIL.replace("/", "∕"), compression=0.4), 0.2, data=EVIL, provenance=provenance)
    bench_json(first, first.folder)
    return [first, second, third]


@pytest.fixture(scope="module")
def report(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("written") / "report.html"
    zoo(["report", *(str(run.folder) for run in runs), "--out", str(page)])
    return page


@pytest.fixture(scope="module")
def elements(report: Path) -> Elements:
    return Elements(report.read_text(encoding="utf-8"))


def names(elements: Elements) -> list[str]:
    return [row[0][1] for row in elements.tables[0][1:]]


def test_the_page_is_well_formed_and_its_links_lead_somewhere(elements: Elements) -> None:
    ids = [values["id"] for _, values in elements.found if "id" in values]
    targets = [values["href"] for _, values in elements.found if "href" in values]
    assert len(set(ids)) == len(ids) >= 9
    assert {f"#{i}" for i in ids} == set(targets)
    assert all(values.get("aria-label") for tag, values in elements.found if tag == "svg" and values.get("role"))


def test_nothing_is_loaded_from_elsewhere(report: Path, elements: Elements) -> None:
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", text)
    assert not any({"src", "srcset", "data", "action"} & set(values) for _, values in elements.found)
    assert "link" not in {tag for tag, _ in elements.found}


def test_what_a_card_holds_is_text_and_never_markup(elements: Elements) -> None:
    assert sum(tag == "script" for tag, _ in elements.found) == 1
    assert not any(name.startswith("on") for _, values in elements.found for name in values)
    text = "".join(elements.texts)
    assert text.count(EVIL) >= 4  # the command, the hardware, the data set, the processor, the corruption


def test_every_run_is_in_every_table_that_compares_runs(elements: Elements, runs: list[Run]) -> None:
    assert len(set(names(elements))) == len(runs)
    compared = [table for table in elements.tables if table[0][0][0].strip() == "run"]
    assert len(compared) >= 5
    for table in compared:
        assert {row[0][1] for row in table[1:]} == set(names(elements))


@pytest.mark.parametrize("name", PROBES.names())
def test_every_probe_is_shown(name: str, runs: list[Run], tmp_path: Path) -> None:
    run = Run(shutil.copytree(runs[0].folder, tmp_path / "run"))
    images, labels = torch.zeros(2, *run.card.image_shape, dtype=torch.uint8), torch.tensor([0, 1])
    context = ProbeContext(run.trained_model(), images, labels, eps=0.01)
    cases = PROBES.get(name)().cases(context)
    found = tuple(Finding(probe=name, case=case, accuracy=0.25, n=2) for case in cases)
    run.save_card(run.card.model_copy(update={"findings": found}))
    shown = probes(gather([run.folder])).blocks
    charts = [chart for block in shown if isinstance(block, Gallery) for chart in block.charts]
    assert charts or any(isinstance(block, Details) for block in shown)
    Elements(render(compose(gather([run.folder]))))


def test_accuracies_are_those_of_the_cards(elements: Elements, runs: list[Run]) -> None:
    head, *rows = elements.tables[0]
    column = next(i for i, (title, _) in enumerate(head) if title.strip().startswith("clean"))
    assert [float(row[column][1]) for row in rows] == [run.card.evaluations[0].accuracy for run in runs]


def test_sort_keys_are_numbers_wherever_the_column_is_numeric(report: Path) -> None:
    class Keys(HTMLParser):
        keys: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            if "data-value" in values and "number" in (values["class"] or "").split():
                self.keys.append(values["data-value"] or "")

    parser = Keys()
    parser.feed(report.read_text(encoding="utf-8"))
    assert len(parser.keys) > 50
    assert all(key == "" or isinstance(float(key), float) for key in parser.keys)


def test_masked_gradients_are_said_first(elements: Elements) -> None:
    warnings = [values for tag, values in elements.found if tag == "p" and values.get("class") == "warning"]
    assert len(warnings) == 1
    text = "".join(elements.texts)
    assert text.index("masked gradients (zero gradients)") < text.index("architecture")


def test_the_figures_are_there_as_data_and_as_pictures(report: Path, runs: list[Run]) -> None:
    data = json.loads(report.with_suffix(".json").read_text())
    assert [Card.model_validate(run["card"]) for run in data["runs"]] == [run.card for run in runs]
    assert data["runs"][0]["latency"]["median_ms"] == 1.25
    assert data["runs"][1]["latency"] is None
    pictures = list(report.with_suffix("").glob("*.png"))
    assert len(pictures) >= 10
    assert all(p.read_bytes().startswith(b"\x89PNG") and p.stat().st_size > 5_000 for p in pictures)


def test_minutes_of_training_are_those_of_the_card(elements: Elements) -> None:
    table = next(t for t in elements.tables if "minutes" in [title.strip() for title, _ in t[0]])
    column = [title.strip() for title, _ in table[0]].index("minutes")
    assert [row[column][1] for row in table[1:]] == ["1.5", "1.5", "1.5"]


@pytest.mark.slow
def test_runs_whose_names_differ_in_a_sign_have_pictures_of_their_own(runs: list[Run], tmp_path: Path) -> None:
    for name in ("a-b", "a_b"):
        shutil.copytree(runs[0].folder, tmp_path / name)
    zoo(["report", str(tmp_path / "a-b"), str(tmp_path / "a_b"), "--out", str(tmp_path / "x.html")])
    pictures = {path.name for path in (tmp_path / "x").glob("conditioning-*.png")}
    assert pictures == {"conditioning-a-b.png", "conditioning-a-b-2.png"}


def test_a_map_without_a_value_is_drawn(tmp_path: Path) -> None:
    """As of layers that are all singular: their condition numbers are infinite."""
    chart = Heatmap("x", "x", ("layer",), ("0",), ((float("inf"),),), log=True)
    draw_png(chart, tmp_path / "x.png")
    assert (tmp_path / "x.png").is_file()
    assert "nan" not in draw(chart)


def test_latency_is_shown_where_it_was_measured(elements: Elements) -> None:
    head, *rows = elements.tables[0]
    column = next(i for i, (title, _) in enumerate(head) if title.strip().startswith("ms"))
    assert [row[column][1] for row in rows] == ["1.25", "", ""]


POINTS = st.lists(st.tuples(st.integers(0, 20).map(float), st.integers(0, 20).map(float)), max_size=30)


@examples(max_examples=40)
@given(POINTS)
def test_the_pareto_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    def dominated(p: tuple[float, float]) -> bool:
        return any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points)

    front = pareto_front(points)
    assert set(front) == {p for p in points if not dominated(p)}
    assert front == sorted(set(front))
    line = steps(front, 21.0)
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(line))


@given(
    st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
)
def test_axes_show_all_values_and_have_round_ticks(values: list[float], log: bool, whole: bool) -> None:
    values = [float(round(v)) + 1 for v in values] if whole else values
    scale = Scale.of(Axis(log=log, whole=whole), values)
    assert all(0 <= scale.place(v) <= 1 for v in values)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))
    assert all(-1e-9 <= scale.place(t) <= 1 + 1e-9 for t in ticks)
    if whole and not log:
        assert all(t == round(t) for t in ticks)


@given(st.lists(st.just(0.0) | st.floats(1e-6, 1), min_size=1, max_size=9), st.booleans())
def test_shares_have_an_axis_within_0_and_100_percent(values: list[float], log: bool) -> None:
    scale = Scale.of(Axis(percent=True, log=log), values)
    assert 0 <= scale.low < scale.high <= 1
    assert all(0 <= tick <= 1 for tick in scale.ticks())
    assert all(place is None or -1e-9 <= place <= 1 + 1e-9 for place in map(scale.place, values))


def test_a_single_share_has_an_axis_up_to_100_percent() -> None:
    scale = Scale.of(Axis(percent=True), [0.93])
    assert scale.high == 1.0
    assert [scale.text(tick) for tick in scale.ticks()][-1] == "100%"


@pytest.mark.parametrize("values", [[], [0.0], [float("inf"), 1.0], [0.0, 0.0], [float("nan")]])
@pytest.mark.parametrize("log", [True, False])
def test_charts_of_odd_values_are_drawn(values: list[float], log: bool) -> None:
    series = Series(EVIL, tuple((v, v) for v in values))
    svg = draw(Chart("x", EVIL, Axis(EVIL, log=log), Axis(log=log), (series,)))
    assert "nan" not in svg
    assert "inf" not in svg
    assert EVIL not in svg
    Elements(svg)
    Elements(draw(Heatmap("x", EVIL, (EVIL,), tuple(EVIL[: len(values)]), (tuple(values),), log)))


def test_a_thinned_curve_keeps_its_mean() -> None:
    points = [(float(i), float(i % 7)) for i in range(1000)]
    few = thinned(points, 100)
    assert len(few) == 100
    assert sum(y for _, y in few) / 100 == pytest.approx(sum(y for _, y in points) / 1000)
    assert thinned(points[:50], 100) == tuple(points[:50])


def figures(card: Card, name: str = "x") -> RunFigures:
    return RunFigures(name, Style(), card)


def test_runs_are_compared_by_the_attack_that_most_of_them_have(runs: list[Run]) -> None:
    whole = runs[0].card
    weak = whole.model_copy(update={"evaluations": tuple(e for e in whole.evaluations if e.attack != "autoattack")})
    attack, eps = reference([figures(whole), figures(weak)], "Linf")
    assert (attack.name, attack.steps, eps) == ("pgd", 20, 0.01)
    only_fgsm = whole.model_copy(update={"evaluations": whole.evaluations[:3]})
    attack, eps = reference([figures(whole), figures(only_fgsm)], "Linf")
    assert (attack.name, eps) == ("fgsm", 0.01)
    assert reference([figures(only_fgsm)], "L2") is None


def test_curves_of_one_label_say_how_they_differ(runs: list[Run]) -> None:
    made = [
        Evaluation(attack="pgd", norm=norm, eps=0.1, accuracy=0.5, n=9, options={"steps": 20, "random_start": start})
        for norm, start in (("Linf", True), ("Linf", False), ("L2", True))
    ]
    card = runs[0].card.model_copy(update={"evaluations": tuple(made)})
    gallery = next(block for block in robustness([figures(card, "a")]).blocks if isinstance(block, Gallery))
    assert sorted((chart.title, chart.note) for chart in gallery.charts) == [
        ("PGD-20, L2", ""),
        ("PGD-20, Linf", "Settings: random start False, steps 20."),
        ("PGD-20, Linf", "Settings: random start True, steps 20."),
    ]


def test_a_weaker_curve_is_drawn_only_for_runs_without_the_stronger_one(runs: list[Run]) -> None:
    whole = runs[0].card
    drawn = [(a.name, a.steps) for a in curves([figures(whole, "a")])]
    assert ("pgd", 20) in drawn
    assert ("pgd", 10) not in drawn
    ten = tuple(e for e in whole.evaluations if e.options.get("steps") != 20)
    drawn = [
        (a.name, a.steps)
        for a in curves([figures(whole, "a"), figures(whole.model_copy(update={"evaluations": ten}), "b")])
    ]
    assert {("pgd", 20), ("pgd", 10)} <= set(drawn)


def test_names_tell_runs_apart() -> None:
    folders = [Path("/r/a/x"), Path("/r/b/x"), Path("/r/y")]
    assert unique_names(folders) == ["a/x", "b/x", "y"]


def test_forms_of_layers_are_read_off_the_exported_file(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph)
    form = {"split": "kxk to 1x1", "rank": 16, "reason": EVIL, "costs": {"dense": 0.25}}
    onnx.helper.set_model_props(model, {"weights_sha256": "a", "forms": json.dumps({"backbone.conv1": form})})
    onnx.save(model, tmp_path / "model.onnx")
    found = read_forms(tmp_path / "model.onnx", "a")
    assert found == {"conv1": LayerForm("kxk to 1x1, rank 16", EVIL, {"dense": 0.25})}
    assert read_forms(tmp_path / "model.onnx", "b") == {}  # of other weights


def test_weights_before_training_are_those_that_it_began_with(train_tiny) -> None:
    """The first row of layers.csv was read off the weights themselves, when training began."""
    run: Run = train_tiny("lowrank", compression=0.5, seed=3)
    before = condition_numbers(starting_model(run))
    with (run.folder / LAYERS).open() as file:
        rows = list(csv.DictReader(file))
    assert {row["epoch"] for row in rows} == {"0", "1"}
    for row in rows:
        expected = before if row["epoch"] == "0" else condition_numbers(run.trained_model())
        assert float(row["condition_number"]) == pytest.approx(expected[row["layer"]], rel=1e-3)
        assert int(row["rank"]) == run.card.ranks[row["layer"]]


@pytest.mark.slow
def test_the_layers_of_a_resumed_training_are_those_of_a_whole_one(train_tiny, dying_at) -> None:
    whole = train_tiny("lowrank", "whole", epochs=2)
    with dying_at(whole.card.training["steps"] - 1):
        train_tiny("lowrank", "killed", epochs=2)
    killed = whole.folder.parent / "killed"
    assert (killed / LAYERS).is_file()
    zoo(["train", "--resume", str(killed)])
    assert (killed / LAYERS).read_text() == (whole.folder / LAYERS).read_text()


def test_singular_values_are_those_of_the_product() -> None:
    layer = torch.nn.Conv2d(4, 6, 3)
    expected = torch.linalg.svdvals(layer.weight.detach().flatten(1).double())
    torch.testing.assert_close(torch.tensor(singular_values(torch.nn.Sequential(layer))["0"]).double(), expected)


def test_other_pages_share_the_frame_and_the_table() -> None:
    table = Table(
        [Column("name"), Column("x", best="high")], [[Cell("a", "a"), Cell("1", 1)], [Cell("b", "b"), Cell("2", 2)]]
    )
    page = Elements(render(Page(EVIL, EVIL, [Section("all", EVIL, [Text(EVIL), table])])))
    assert page.tables[0][2] == [("b", "b"), ("2", "2")]
    assert table.is_best(table.rows[1], 1)
    assert not table.is_best(table.rows[0], 1)
    bounded = Table([Column("x", best="high")], [[Cell("<3", 3, is_bound=True)], [Cell("2", 2)], [Cell("1", 1)]])
    assert [bounded.is_best(row, 0) for row in bounded.rows] == [False, True, False]
    only = Table([Column("x", best="high")], [[Cell("<3", 3, is_bound=True)], [Cell("<2", 2, is_bound=True)]])
    assert [only.is_best(row, 0) for row in only.rows] == [True, False]
    with pytest.raises(ValueError, match="1 cells under 2"):
        Table([Column("a"), Column("b")], [[Cell("")]])


def damaged(run: Run, folder: Path, name: str, content: str) -> Path:
    shutil.copytree(run.folder, folder)
    (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bench.json", "[]", "was not written by `zoo bench`"),
        ("metrics.csv", "step,loss\n1,x\n", "line 2: loss is 'x'"),
        ("layers.csv", "epoch,layer\n1,a\n", "line 2 is damaged"),
        ("model.onnx", "no graph", "is damaged: export the run again"),
        ("card.json", "{}", "not a card"),
    ],
)
def test_damaged_files_are_named_and_an_older_report_stays(
    runs: list[Run], tmp_path: Path, name: str, content: str, message: str
) -> None:
    folder, page = damaged(runs[0], tmp_path / "run", name, content), tmp_path / "report.html"
    page.write_text("old")
    with pytest.raises(UserError, match=re.escape(message)):
        zoo(["report", str(folder), "--out", str(page)])
    assert page.read_text() == "old"


def test_runs_without_a_configuration_are_shown_without_their_start(runs: list[Run], tmp_path: Path) -> None:
    folder = damaged(runs[0], tmp_path / "run", "config.yaml", "[")
    assert "before training are not shown: " in render(compose(gather([folder])))


def test_pages_need_their_name(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.html"):
        zoo(["report", str(runs[0].folder), "--out", str(tmp_path)])


def test_the_history_of_layers_needs_factorized_layers_only(tmp_path: Path) -> None:
    """A module without any leaves no file."""
    import lightning.pytorch as pl

    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(2, 1)

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return self.net(batch).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[LayerHistory(tmp_path / LAYERS)],
    )  # fmt: skip
    trainer.fit(Plain(), torch.utils.data.DataLoader(torch.ones(4, 2)))
    assert not (tmp_path / LAYERS).exists()


@pytest.mark.slow
def test_a_browser_shows_the_page_in_both_themes_and_sorts_its_tables(report: Path, tmp_path: Path) -> None:
    """Pixels decide on the themes; the page itself says what a click on a heading did."""
    from PIL import Image

    browser = [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    corners = []
    for theme in ("1", "0"):
        shot = tmp_path / f"{theme}.png"
        options = [f"--blink-settings=preferredColorScheme={theme}", "--window-size=900,700", f"--screenshot={shot}"]
        subprocess.run([*browser, *options, report.as_uri()], check=True, capture_output=True, timeout=60)
        corners.append(sum(Image.open(shot).convert("RGB").getpixel((2, 2))))
    assert corners[0] > 600
    assert corners[1] < 150
    probe = """<script>
      const table = document.querySelector("table"), column = [...table.tHead.rows[0].cells].findIndex(
        c => c.textContent.startsWith("clean"));
      const values = () => [...table.tBodies[0].rows].map(r => Number(r.cells[column].dataset.value));
      const button = table.tHead.rows[0].cells[column].querySelector("button");
      button.click(); const down = values(); button.click(); const up = values();
      document.title = JSON.stringify([down, up, document.documentElement.scrollWidth - innerWidth]);
    </script></body>"""
    page = tmp_path / "probe.html"
    page.write_text(report.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    done = subprocess.run(
        [*browser, "--window-size=500,900", "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60
    )
    down, up, overflow = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)
    assert down != up
    assert overflow <= 0  # no sideways scrolling on a phone


def test_of_several_bench_files_the_time_in_fp32_counts(tmp_path: Path) -> None:
    from zoo.report.latencies import read_timings

    paths = []
    for precision, ms in (("fp32", 2.0), ("int8", 1.0)):
        latency = [{"batch": 1, "median_ms": ms, "p95_ms": ms}]
        row = {"weights_sha256": "a", "precision": precision, "latency": latency, "bytes": 1}
        result = {"device": "cpu", "cpu": "c", "threads": 2, "provider": "p", "rows": [row]}
        paths.append(tmp_path / f"{precision}.json")
        paths[-1].write_text(json.dumps(result))
    for order in (paths, paths[::-1]):
        assert read_timings(order)["a"].median_ms == 2.0
