"""The leaderboard: like is compared with like, what is not to be believed has no rank, every figure is a card's."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import refresh_published
from html_page import EVIL, Elements, chromium
from hub_server import FaultyServer
from make_hub import L2, LINF, PARTS, autoattack, fgsm, make_card, pgd, write_hub
from refresh_published import CURVE
from refresh_readme import README, refreshed

from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.files import sha256
from zoo.hub.search import BUNDLED, published
from zoo.leaderboard import gather, write_leaderboard, write_robustbench
from zoo.leaderboard.robustbench import standard_autoattack
from zoo.leaderboard.standings import lowest, standings
from zoo.runs.card import Card
from zoo.runs.recipes import FOLDER
from zoo.runs.records import Threat

STRONG, SMALL, MASKED, OTHER, HUNDRED, NEVER = NAMES = tuple(
    f"resnet18.{tag}" for tag in ("strong", "small", "masked", "other", "hundred", "never")
)


def cards() -> list[Card]:
    strong = make_card(STRONG, LINF, [autoattack(LINF, 0.48), pgd(LINF, 0.52), autoattack(L2, 0.55)], ms=8.0)
    made = strong.provenance.model_copy(update={"command": EVIL})
    return [
        strong.model_copy(update={"provenance": made, "licence": EVIL}),
        make_card(SMALL, LINF, [pgd(LINF, 0.40)], params=1000, ms=0.5, hardware=EVIL),
        make_card(MASKED, LINF, [pgd(LINF, 0.79)], masked=True, ms=3.0, hardware="A third"),
        make_card(OTHER, L2, [pgd(L2, 0.30), autoattack(LINF, 0.01)]),
        make_card(HUNDRED, LINF, [autoattack(LINF, 0.6)], data="cifar100"),
        make_card(NEVER, None, []),
    ]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub(tmp_path_factory.mktemp("hub") / "hub", cards())


@pytest.fixture(scope="module")
def page(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("page") / "the board.html"
    zoo(["leaderboard", "--hub", str(hub), "--out", str(page)])
    return page


@pytest.fixture(scope="module")
def elements(page: Path) -> Elements:
    return Elements(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data(page: Path) -> dict:
    return json.loads(page.with_suffix(".json").read_text())


def table_with(elements: Elements, name: str) -> list[list[tuple[str, str]]]:
    """Return the first table that ranks a model; the hub that comes with zoo has tables of its own."""
    return next(table for table in elements.tables if any(row[0][1] == name for row in table[1:]))


def column(table: list[list[tuple[str, str]]], title: str) -> list[str]:
    place = [text.strip().split("\n")[0] for text, _ in table[0]].index(title)
    return [row[place][1] for row in table[1:]]


def test_each_table_has_one_data_set_and_threat_model_and_all_that_were_measured_there(data: dict) -> None:
    tables = {(t["data"], t["norm"], t["eps"]): [row["name"] for row in t["rows"]] for t in data["tables"]}
    bundled = [Card.load(path) for path in BUNDLED.glob("*/card.json")]
    for (dataset, norm, eps), ours in (
        (("cifar10", "Linf", 8 / 255), [STRONG, SMALL, OTHER, MASKED]),
        (("cifar10", "L2", 0.5), [STRONG, OTHER]),
        (("cifar100", "Linf", 8 / 255), [HUNDRED]),
    ):
        at_home = [c for c in bundled if c.data == dataset]
        there = {c.name for c in at_home if any((e.norm, e.eps) == (norm, eps) for e in c.evaluations)}
        found = tables[(dataset, norm, eps)]
        assert [name for name in found if name not in there] == ours
        assert sorted(found) == sorted([*ours, *there])
    judged_by = {(c.data, c.threat_model.norm, c.threat_model.eps) for c in cards() if c.threat_model}
    assert set(tables) == judged_by | {(c.data, c.threat_model.norm, c.threat_model.eps) for c in bundled}


def test_every_figure_is_that_of_the_card(hub: Path, data: dict, elements: Elements) -> None:
    found = published(str(hub))
    assert set(data["models"]) == set(found)
    for table in data["tables"]:
        threat = Threat(norm=table["norm"], eps=table["eps"])
        for row in table["rows"]:
            robust = found[row["name"]].entry.summary.robust_at(threat)
            assert (row["robust"], row["n"]) == (robust.accuracy, robust.n)
    for name, model in data["models"].items():
        summary = found[name].entry.summary
        for key in ("clean", "params", "macs", "latency_ms", "method", "data"):
            assert model[key] == getattr(summary, key)
        assert model["card_sha256"] == found[name].entry.files["card.json"].sha256
    for shown, table in zip(elements.tables, data["tables"], strict=False):
        names = [row["name"] for row in table["rows"]]
        assert column(shown, "model") == names
        assert column(shown, "clean") == [str(data["models"][name]["clean"]) for name in names]
        assert column(shown, "parameters") == [str(data["models"][name]["params"]) for name in names]
        believed = [str(row["robust"]) if not row["gradient_masking"] else "" for row in table["rows"]]
        assert column(shown, "robust") == believed


def test_an_upper_bound_is_marked_as_in_the_list(page: Path, data: dict) -> None:
    attacks = [row["attack"] for table in data["tables"] for row in table["rows"]]
    bounds = [attack for attack in attacks if attack != "autoattack"]
    assert 0 < len(bounds) < len(attacks)
    assert len(re.findall(r">&lt;\d", page.read_text(encoding="utf-8"))) == len(bounds)


def test_masked_gradients_are_flagged_and_never_lead(page: Path, elements: Elements) -> None:
    """Its accuracy under attack is the highest of all, and still it is last, outside the charts, and no best."""
    table = table_with(elements, MASKED)
    assert column(table, "model")[-1] == MASKED
    assert column(table, "masking")[-1] == "masked gradients"
    warnings = [values for tag, values in elements.found if tag == "p" and values.get("class") == "warning"]
    assert len(warnings) == 1
    charts = re.findall(r"<svg viewBox.*?</svg>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert any(f"{STRONG}:" in chart for chart in charts)
    assert not any(f"{MASKED}:" in chart for chart in charts)
    assert 'data-value="" class="number  bad">&lt;79.0</td>' in page.read_text(encoding="utf-8")


def test_latencies_of_different_machines_are_told_apart(elements: Elements) -> None:
    head, *rows = table_with(elements, MASKED)
    place = next(i for i, (title, _) in enumerate(head) if title.strip().startswith("ms"))
    cells = {row[0][1]: row[place] for row in rows}
    text = "".join(elements.texts)
    for name, shown, machine in (
        (STRONG, "8.00", "One processor"),
        (SMALL, "0.50", EVIL),
        (OTHER, "1.00", "One processor"),
        (MASKED, "3.00", "A third"),
    ):
        milliseconds, number = cells[name][0].split()
        assert (milliseconds, float(cells[name][1])) == (shown, float(shown))
        assert f"{number} CPUExecutionProvider, {machine}, 2 threads" in text


def test_each_row_leads_to_the_card_as_the_hub_has_it_and_to_its_command(
    page: Path, hub: Path, elements: Elements
) -> None:
    ids = {values["id"] for _, values in elements.found if "id" in values}
    targets = {values["href"] for tag, values in elements.found if tag == "a"}
    assert {target[1:] for target in targets if target.startswith("#")} == ids - {f"made-{NEVER}"}
    linked = {page.parent / target.replace("%20", " ") for target in targets if not target.startswith("#")}
    assert linked == set(page.with_suffix("").glob("*.json"))
    for name in NAMES:
        assert f"made-{name}" in ids
        assert sha256(page.with_suffix("") / f"{name}.json") == sha256(hub / name / "card.json")


def test_models_without_a_measurement_are_named(elements: Elements) -> None:
    assert f"so they are in no table: {NEVER}." in "".join(elements.texts)


def test_the_page_loads_nothing_and_what_a_card_holds_is_text(page: Path, elements: Elements) -> None:
    assert not re.search(r"https?:|@import|url\(", page.read_text(encoding="utf-8"))
    assert not any({"src", "srcset", "action"} & set(values) for _, values in elements.found)
    assert sum(tag == "script" for tag, _ in elements.found) == 1
    assert "".join(elements.texts).count(EVIL) >= 3  # the command, the licence, the processor


def test_of_a_hub_elsewhere_only_the_cards_are_downloaded(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    server = FaultyServer(hub)
    with server.running():
        zoo(["leaderboard", "resnet18.s*", "--hub", server.address, "--out", str(tmp_path / "page.html")])
    assert {path for path, _ in server.requests} == {"/index.json", *(f"/{n}/card.json" for n in (STRONG, SMALL))}
    models = json.loads((tmp_path / "page.json").read_text())["models"]
    assert {model["hub"] for model in models.values()} == {server.address}


def test_of_equal_accuracies_the_stronger_attack_is_named() -> None:
    card = make_card(STRONG, LINF, [pgd(LINF, 0.4), autoattack(LINF, 0.4), pgd(L2, 0.1)])
    assert lowest(card, LINF).attack == "autoattack"
    assert lowest(card, Threat(norm="Linf", eps=0.0313)) is None
    assert lowest(card, Threat(norm="Linf", eps=0.0313725)) is not None


def test_models_are_chosen_by_name_and_data(hub: Path, tmp_path: Path) -> None:
    zoo(["leaderboard", "--data", "digits", "--hub", str(hub), "--out", str(tmp_path / "page.html")])
    assert all(name.startswith("test_") for name in json.loads((tmp_path / "page.json").read_text())["models"])
    with pytest.raises(UserError, match="no model to compare"):
        zoo(["leaderboard", "nothing*", "--hub", str(hub), "--out", str(tmp_path / "none.html")])
    with pytest.raises(UserError, match=r"ends in \.html"):
        zoo(["leaderboard", "--hub", str(hub), "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "page.json", "page"}


def test_a_damaged_card_is_named_and_an_older_page_stays(hub: Path, tmp_path: Path) -> None:
    broken, page = tmp_path / "hub", tmp_path / "page.html"
    shutil.copytree(hub, broken)
    (broken / SMALL / "card.json").write_text("{}")
    page.write_text("old")
    with pytest.raises(UserError, match="SHA-256 differs"):
        zoo(["leaderboard", "--hub", str(broken), "--out", str(page)])
    assert page.read_text() == "old"


@pytest.mark.parametrize(
    "changes",
    [
        {"eps": 4 / 255},
        {"n": 999},
        {"attack": "apgd"},
        {"parts": dict.fromkeys(PARTS[:3], 0.5)},
        {"skipped": {"apgd_t": "fewer than 4 classes"}},
        {"options": {"restarts": 1, "seed": 0, "gradients": "bf16"}},
        {"options": {"restarts": 2, "seed": 0}},
    ],
)
def test_only_the_whole_standard_autoattack_counts_for_robustbench(changes: dict) -> None:
    whole = autoattack(LINF, 0.4)
    assert standard_autoattack(make_card(STRONG, LINF, [whole, pgd(LINF, 0.3)]), LINF) == whole
    card = make_card(STRONG, LINF, [autoattack(LINF, 0.4, **changes), pgd(LINF, 0.3)])
    assert standard_autoattack(card, LINF) is None


def test_robustbench_gets_a_file_per_benchmark_and_the_rest_are_named(tmp_path: Path) -> None:
    done = write_robustbench({card.name: card for card in cards()}, tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")}
    ten = {f"cifar10/Linf/{STRONG}.json", f"cifar10/L2/{STRONG}.json", f"cifar10/Linf/{OTHER}.json"}
    assert files == ten | {f"cifar100/Linf/{HUNDRED}.json"}
    assert {tmp_path / file for file in files} == set(done.files)
    assert set(done.left_out) == {SMALL, MASKED, NEVER}
    info = json.loads((tmp_path / f"cifar10/Linf/{STRONG}.json").read_text())
    assert (info["dataset"], info["eps"], info["clean_acc"], info["autoattack_acc"]) == (
        "cifar10", "8/255", "80.0", "48.0",
    )  # fmt: skip
    assert json.loads((tmp_path / f"cifar10/L2/{STRONG}.json").read_text())["eps"] == "0.5"
    assert "1,000 test images" in info["footnote"]
    assert info["unreliable"] is False


def test_robustbench_files_have_the_fields_of_its_tables(tmp_path: Path) -> None:
    """Its leaderboard sorts by the accuracy and shows the others; numbers are percentages in strings."""
    fields = {
        *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"),
        *("eps", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable"),
    }
    card = make_card(STRONG, LINF, [autoattack(LINF, 0.48123)], clean=0.8, masked=True)
    (file,) = write_robustbench({STRONG: card}, tmp_path).files
    info = json.loads(file.read_text())
    assert set(info) == fields
    assert info["unreliable"] is True
    assert "Masked gradients (zero gradients)" in info["footnote"]
    assert float(info["autoattack_acc"]) / 100 == pytest.approx(0.48123, abs=5e-5)
    assert all(isinstance(info[key], str) for key in ("eps", "clean_acc", "autoattack_acc", "venue", "link"))


def test_what_was_filled_in_by_hand_stays_and_what_was_measured_does_not(tmp_path: Path) -> None:
    (file,) = write_robustbench({STRONG: make_card(STRONG, LINF, [autoattack(LINF, 0.4)])}, tmp_path).files
    file.write_text(json.dumps(json.loads(file.read_text()) | {"authors": "A. Author", "autoattack_acc": "99.0"}))
    better = {STRONG: make_card(STRONG, LINF, [autoattack(LINF, 0.45)])}
    write_robustbench(better, tmp_path)
    info = json.loads(file.read_text())
    assert (info["authors"], info["autoattack_acc"]) == ("A. Author", "45.0")
    file.write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        write_robustbench(better, tmp_path)


def test_the_command_says_who_is_left_out_for_robustbench(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    zoo(["leaderboard", "--hub", str(hub), "--out", str(tmp_path / "x.html"), "--robustbench", str(tmp_path / "info")])
    printed = capsys.readouterr().out
    assert "4 files for RobustBench" in printed
    assert f"left out {SMALL}: no whole standard AutoAttack in fp32 at Linf 8/255 or L2 0.5" in printed
    (nearly,) = (line for line in printed.splitlines() if "out resnet18.robust_lowrank90_at_c10:" in line)
    assert "its own has apgd, apgd_t, fab_t, square on 1,000 images, restarts 1, gradients bf16" in nearly
    assert "test_resnet.robust_lowrank50_digits: RobustBench has no digits" in printed


def test_the_bundled_models_make_a_page(tmp_path: Path) -> None:
    models = gather(published(""))
    written = write_leaderboard(models, tmp_path / "page.html")
    assert written.tables == len(standings(models)) >= 1
    assert {model.hub for model in models} == {"bundled"}
    assert str(BUNDLED) not in written.page.read_text() + written.data.read_text()


@pytest.mark.parametrize("head", ["$ zoo list --models\n", "<!-- standard training -->\n"])
def test_the_readme_s_tables_of_models_are_those_of_the_cards(head: str) -> None:
    """When it fails: python tests/refresh_readme.py."""
    text = README.read_text()
    assert refreshed(text) == text
    before, mark, table = text.partition(head)
    wrong, changes = re.subn(r"\b\d\d\.\d\b", "12.3", table, count=1)
    assert changes == 1
    assert refreshed(before + mark + wrong) == text


@pytest.mark.parametrize("card", refresh_published.measured(), ids=lambda card: card.name)
def test_a_recipe_says_the_figures_of_its_model_s_card(card: Card) -> None:
    found = re.search(r"--config (\w+)", card.provenance.command)
    if found is None:
        pytest.skip("trained without a recipe")
    measured = (FOLDER / f"{found[1]}.yaml").read_text().partition("# Measured:")[2].partition("# Run time")[0]
    figures = refresh_published.curve(card) or [card.clean, lowest(card, refresh_published.EPS)]
    for evaluation in figures:
        assert evaluation is not None
        assert f"{100 * evaluation.accuracy:.1f}" in measured


def test_the_page_of_published_figures_has_those_of_the_cards() -> None:
    """When it fails: python tests/refresh_published.py."""
    text = refresh_published.PAGE.read_text()
    assert refresh_published.refreshed(text, refresh_published.measured()) == text


def test_models_stand_beside_what_others_published() -> None:
    text = refresh_published.PAGE.read_text()
    training = {"training": {"adversary": "pgd"}}
    curve = [*(fgsm(threat, 0.6) for threat in CURVE[:3]), *(pgd(threat, 0.3) for threat in CURVE[3:])]
    cards = [
        make_card("resnet18.small_at_c10", LINF, [autoattack(LINF, 0.481)], clean=0.8123, **training),
        make_card("vgg16_bn.masked_at_c10", LINF, [pgd(LINF, 0.5, n=200)], masked=True, **training),
        make_card("resnet18.other_eps_c10", L2, [pgd(L2, 0.5)], **training),
        make_card("resnet18.digits", LINF, [autoattack(LINF, 0.9)], data="digits", **training),
        make_card("vgg16_bn.plain_c10", CURVE[0], curve),
        make_card("resnet18.plain_c10", CURVE[0], curve),
    ]
    changed = refresh_published.refreshed(text, cards)
    robust, _, plain = changed.partition("## CIFAR-10 without")
    lines = {line.split("`")[1]: line for line in changed.splitlines() if "| **[`" in line}
    assert set(lines) == {"resnet18.small_at_c10", "vgg16_bn.masked_at_c10", "vgg16_bn.plain_c10"}
    assert "| **81.23** | **48.10** | AutoAttack, 1,000 | zoo |" in lines["resnet18.small_at_c10"]
    assert "**50.00** (masked gradients) | pgd-20, 200 | zoo |" in lines["vgg16_bn.masked_at_c10"]
    assert lines["vgg16_bn.plain_c10"] in plain
    assert (
        "| **60.0** / **60.0** / **60.0** | **30.0** / **30.0** / **30.0** | 10,000 | zoo |"
        in lines["vgg16_bn.plain_c10"]
    )
    assert "| ResNet-18 | TwinRep | channels | 75 | 79.37 | 45.21 | AutoAttack, 10,000 |" in robust


@pytest.mark.slow
def test_a_browser_sorts_the_leaderboard_and_keeps_the_masked_last(page: Path, tmp_path: Path) -> None:
    probe = """<script>
      const table = [...document.querySelectorAll("table")].find(t => t.querySelector("[data-value='STRONG']"));
      const head = [...table.tHead.rows[0].cells];
      const column = head.findIndex(c => c.textContent.startsWith("robust"));
      const names = () => [...table.tBodies[0].rows].map(r => r.cells[0].dataset.value);
      const button = head[column].querySelector("button"), seen = [names()];
      button.click(); seen.push(names()); button.click(); seen.push(names());
      document.title = JSON.stringify([seen, document.documentElement.scrollWidth - innerWidth]);
    </script></body>""".replace("STRONG", STRONG)  # the hub that comes with zoo has tables of its own
    probed = tmp_path / "probe.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    browser = [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    done = subprocess.run(
        [*browser, "--window-size=500,900", "--dump-dom", probed.as_uri()], capture_output=True, text=True, timeout=60
    )
    (start, down, up), overflow = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert start == down == [STRONG, SMALL, OTHER, MASKED]
    assert up == [OTHER, SMALL, STRONG, MASKED]
    assert overflow <= 0
