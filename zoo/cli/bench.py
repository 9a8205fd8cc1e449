"""Time ONNX files beside their dense backbones and measure their accuracy under attack."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub
from zoo.errors import UserError, unknown_name

if TYPE_CHECKING:
    from zoo.bench.in_runtimes import LeftOut
    from zoo.bench.target import Target
    from zoo.evaluation.sweeps import Sweep
    from zoo.export.settings import ExportSettings, Precision
    from zoo.runs.file_metadata import Metadata
    from zoo.runs.run import Run

TASK = "measure"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, measure, print the table and write the JSON file."""
    from zoo.bench.benchmark import Settings

    add = parser.add_argument
    what = "Runs, published models, checkpoints (RUN/last.ckpt) or exported files."
    add("targets", nargs="+", type=Path, metavar="RUN|CHECKPOINT|FILE", help=what)
    add_hub(parser)
    parser.add_fields(Settings)
    add("--attacks", type=str, default="pgd", help="Attacks that make the adversarial examples: fgsm,pgd.")
    add("--norms", type=str, default="Linf", help="Linf, L2, L1, L0 or several.")
    add(
        "--eps",
        type=str,
        default=None,
        help="Radii in pixels of [0, 1], such as 2/255,0.01; default per norm.",
    )
    add("--precisions", type=str, default="", help="Of each RUN the files in these precisions: fp32,int8.")
    add("--keep-going", type=bool, default=False, help="Leave out what a runtime cannot run, and say why.")
    add("--page", type=Path | None, default=None, help="Also a page with Pareto fronts, such as runtimes.html.")
    add("--json", type=Path | None, default=None, help="Result; default bench.json beside the first target.")
    options = parser.parse_args(argv).as_dict()

    from rich.console import Console

    from zoo.bench.benchmark import bench, check
    from zoo.bench.results import report, tables
    from zoo.files import atomic
    from zoo.report.page import render
    from zoo.report.runtimes import compose
    from zoo.screen import stages

    paths, output, hub = options.pop("targets"), options.pop("json"), options.pop("hub")
    page, precisions = options.pop("page"), _precisions(options.pop("precisions"))
    left_out: list[LeftOut] | None = [] if options.pop("keep_going") else None
    if page is not None and (page.suffix != ".html" or page.is_dir()):
        raise UserError(f"{page} is not a page: give a file name that ends in .html, such as runtimes.html")
    if output is not None and output.is_dir():
        raise UserError(f"{output} is a folder: give a file name, such as --json {output / 'bench.json'}")
    words = {name: options.pop(name) for name in ("attacks", "norms", "eps")}
    settings = Settings(**options)
    sweeps = _sweeps(words, settings.seed)
    direct = _squares(words, settings.queries, settings.seed) if settings.square else []
    check(settings, _data_of_runs(paths, hub))  # before a copy of a published model is made
    with stages("opening") as say:
        wanted = [(path, precision) for path in paths for precision in precisions]
        found = [open_target(path, hub, settings.threads, precision, settings.data_dir) for path, precision in wanted]
        targets = _told_apart(found, [path for path, _ in wanted])
        rows = bench(targets, settings, sweeps, say, direct, left_out)
    output = output or targets[0].path.parent / "bench.json"
    result = report(rows, settings, left_out or ())
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if page is not None:
        with atomic(page) as temporary:
            temporary.write_text(render(compose(result)), encoding="utf-8")
    console = Console(highlight=False)
    for table in tables(rows, settings, console):
        console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.name}: {row.note}", markup=False)
    for left in left_out or ():
        console.print(f"left out: {left.name} in {left.runtime}: {left.reason}", markup=False)
    print(f"saved in {output}" + (f" and {page}" if page else ""))


def _data_of_runs(paths: list[Path], hub: str | None) -> set[str]:
    """Return the data sets of the targets if all are runs or published models; files are opened before they tell."""
    from zoo.hub.runs import look_at

    if any(path.suffix in (".onnx", ".ckpt") for path in paths):
        return set()
    return {look_at(path, hub).card.data for path in paths}


def _sweeps(words: dict[str, str | None], seed: int) -> "list[Sweep]":
    """Return the attacks and radii that the command line requests."""
    from zoo.cli.evaluate import requested_sweeps

    attacks, norms, eps = (words[name] or None for name in ("attacks", "norms", "eps"))
    return requested_sweeps(attacks, norms, eps, seed)


def _squares(words: dict[str, str | None], queries: int, seed: int) -> "list[Sweep]":
    """Return Square at the radii of the other attacks."""
    from zoo.attacks.square import Square
    from zoo.evaluation.sweeps import Sweep

    chosen = _sweeps(words | {"attacks": "square"}, seed)
    return [Sweep(Square(norm=x.attack.norm, queries=queries, seed=seed), x.eps) for x in chosen]


def _told_apart(targets: "list[Target]", paths: list[Path]) -> "list[Target]":
    """Prefix duplicate names with the names of their folders, as many as needed."""
    resolved = [path.resolve() for path in paths]
    for depth in range(max(len(path.parents) for path in resolved)):
        names = Counter(
            name for name, _ in {(target.name, path) for target, path in zip(targets, resolved, strict=True)}
        )
        if max(names.values()) == 1:
            break
        targets = [
            replace(target, name=f"{path.parents[depth].name}/{target.name}") if names[target.name] > 1 else target
            for target, path in zip(targets, resolved, strict=True)
        ]
    return targets


def _precisions(words: str) -> "list[Precision]":
    """Return the precisions that the command line requests; fp32 by default."""
    found = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip())) or ["fp32"]
    known: tuple[Precision, ...] = ("fp32", "int8")
    for name in found:
        if name not in known:
            raise unknown_name("precision", name, known)
    return [name for name in known if name in found]


def open_target(
    path: Path,
    hub: str | None = None,
    threads: int | None = None,
    precision: "Precision" = "fp32",
    data_dir: Path | None = None,
) -> "Target":
    """Find the file and the model of a target; a run without a file is exported first.

    Args:
        path: a run, a published model, a checkpoint or an exported file.
        hub: addresses of hubs, for published models.
        threads: that a file is exported for.
        precision: of the file of a run: model.onnx is that in fp32, model-int8.onnx that in int8.
        data_dir: where the data are that int8 is calibrated on; None: where the run's training found its own.
    """
    from zoo.bench.target import Target
    from zoo.export.exporter import ONNX_FILE, export_model
    from zoo.export.settings import ExportSettings
    from zoo.hub.runs import open_run
    from zoo.latency.session import OnnxModel, default_threads
    from zoo.runs.file_metadata import Metadata
    from zoo.runs.run import CARD, Run

    settings = ExportSettings(threads=threads or default_threads())
    if path.suffix == ".ckpt":
        return _open_checkpoint(path, settings)
    if path.suffix == ".onnx" and not path.is_dir():
        metadata = OnnxModel(path, "cpu").metadata
        if (path.parent / CARD).is_file():
            run = Run(path.parent)
            if run.card.weights.sha256 == metadata.weights_sha256:
                return _target_of(run, f"{run.name}/{path.name}", path, metadata)
        return Target(path.name, path, metadata, None)
    run = open_run(path, hub)
    file = run.folder / (ONNX_FILE if precision == "fp32" else f"model-{precision}.onnx")
    if not file.is_file():
        settings = replace(settings, precision=precision, data_dir=data_dir or run.data_dir)
        export_model(run.model(), Metadata.of(run.card), file, settings)
    metadata = OnnxModel(file, "cpu").metadata
    if metadata.weights_sha256 != run.card.weights.sha256:
        raise UserError(f"{file} has other weights than the run has now: `zoo export {path}` again")
    return _target_of(run, run.name if precision == "fp32" else f"{run.name} {precision}", file, metadata)


def _open_checkpoint(path: Path, settings: "ExportSettings") -> "Target":
    """Export a checkpoint beside itself, unless the file is there already."""
    from zoo.bench.target import Target
    from zoo.export.exporter import export_model
    from zoo.latency.session import OnnxModel
    from zoo.runs.checkpoint import Checkpoint

    checkpoint, file = Checkpoint(path), path.with_suffix(".onnx")
    if not file.is_file() or OnnxModel(file, "cpu").metadata.weights_sha256 != checkpoint.sha256:
        export_model(checkpoint.model(), checkpoint.metadata(), file, settings)
    name = f"{path.parent.resolve().name}/{path.name}"
    metadata = OnnxModel(file, "cpu").metadata
    return Target(name, file, metadata, checkpoint.model, data_dir=checkpoint.data_dir)


def _target_of(run: "Run", name: str, file: Path, metadata: "Metadata") -> "Target":
    from zoo.bench.target import Target

    masking = run.card.sanity.failures if run.card.sanity else ()
    return Target(name, file, metadata, run.model, masking, run.data_dir)
