"""Train several methods under one recipe, and print their figures side by side.

A contender is a method's name, with options in parentheses ('robust_lowrank(rank_budget=adaptive)'), a recipe's name, a
YAML file, or the folder of a finished run; NAME@0.9 is trained at a compression of its own. What follows `--` goes to
every `zoo train`: zoo compare lowrank robust_lowrank --seeds 0,1,2 -- --arch resnet18 --data cifar10 --compression 0.8
--epochs 3. The same command resumes after an interruption.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli._parser import Parser
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.comparison import Comparison, Contender

TASK = "compare"
PICTURE, RESULT, PAGE = "comparison.png", "figures.json", "report.html"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, train what is missing, evaluate, and print the table."""
    own, shared = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    add = parser.add_argument
    add("contenders", nargs="+", metavar="CONTENDER", help="Methods, recipes, YAML files or finished runs.")
    add("--seeds", type=str, default="0", help="Each contender is trained once with each, such as 0,1,2.")
    add("--out", type=Path, default=Path("comparison"), help="Folder of the runs and the results.")
    add("--attacks", type=str | None, default=None, help="Evaluate further, see `zoo evaluate --attacks`.")
    add("--norms", type=str | None, default=None, help="Of --attacks, see `zoo evaluate --norms`, such as Linf,L0.")
    add("--eps", type=str | None, default=None, help="Radii by norm, such as Linf=2/255,8/255,L2=0.5,L1=5,L0=5,10.")
    add("--probes", type=str | None, default=None, help="Look at more than attacks, see `zoo evaluate --probes`.")
    add("--n", type=int, default=1000, help="Test images of --attacks and --probes.")
    add("--page", type=bool, default=False, help="Write the report on all runs, too: report.html in --out.")
    add("--latency", type=bool, default=False, help="Export the first run of each and time all of them in turns.")
    options = parser.parse_args(own)

    from pydantic_core import to_json

    from zoo.comparison import Comparison, Contender, draw, print_comparison, summarise
    from zoo.files import atomic
    from zoo.screen import progress_console

    contenders = tuple(Contender.parse(word) for word in dict.fromkeys(options.contenders))
    comparison = Comparison(contenders, _seeds(options.seeds), tuple(_checked(shared)), options.out)
    evaluation = _evaluation(options)
    for contender in contenders:
        if "--compression" in contender.options and any(x.split("=")[0] == "--compression" for x in shared):
            raise UserError(f"{contender.name} has a compression of its own: leave --compression out after --")
        _check_training(contender, shared)
    comparison.prepare()
    comparison.train(lambda text: progress_console().rule(text, style="dim"))
    if evaluation:
        _evaluate(comparison, evaluation)
    times = _latencies(comparison) if options.latency else {}
    figures = [
        summarise(x.name, [run.card for run in comparison.runs(x)], times.get(x.name)) for x in comparison.contenders
    ]
    print_comparison(figures)
    draw(figures, options.out / PICTURE, _title(comparison))
    with atomic(options.out / RESULT) as temporary:
        temporary.write_bytes(to_json(figures, indent=2, inf_nan_mode="strings") + b"\n")
    print(f"saved in {options.out / RESULT}, curves in {options.out / PICTURE}")
    if options.page:
        _write_page(comparison)


def _seeds(text: str) -> tuple[int, ...]:
    from zoo.runs.config import check_seed

    try:
        seeds = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        raise UserError(f"--seeds {text}: give whole numbers separated by commas, such as 0,1,2") from None
    for seed in seeds:
        check_seed(seed)
    return seeds


def _evaluation(options: Any) -> list[str]:
    """Return what each run is evaluated with besides what its training measured: options of `zoo evaluate`, or none.

    Whatever the evaluations would refuse is refused here, before the trainings.
    """
    from zoo.cli.evaluate import probes_of, requested_sweeps

    if options.n < 1:
        raise UserError(f"--n must be at least 1, not {options.n}")
    requested_sweeps(options.attacks or "quick", options.norms, options.eps, 0)
    probes_of(options.probes or None, 0)
    if not (options.attacks or options.norms or options.eps or options.probes):
        return []
    given = {name: getattr(options, name) for name in ("norms", "eps", "probes")}
    more = [x for name, value in given.items() if value for x in (f"--{name}", value)]
    return ["--attacks", options.attacks or "quick", *more, "--n", str(options.n)]


def _check_training(contender: "Contender", shared: list[str]) -> None:
    """Refuse, before the folder is made, options that the contender's trainings would refuse."""
    from zoo.cli.train import read_recipe

    if contender.folder is None:
        read_recipe(Parser(prog="zoo train"), [*contender.options, *shared])


def _checked(shared: list[str]) -> list[str]:
    for flag in ("--seed", "--out", "--resume", "--overwrite", "--method", "--method.name"):
        if any(word == flag or word.startswith(f"{flag}=") for word in shared):
            raise UserError(f"{flag} is what a comparison sets for each training: leave it out after --")
    return shared


def _title(comparison: "Comparison") -> str:
    """Return the subject of the figures: every architecture once, the shared data, and the seeds."""
    cards = [run.card for contender in comparison.contenders for run in comparison.runs(contender)]
    archs = ", ".join(dict.fromkeys(card.arch for card in cards))
    seeds = f"{len(comparison.seeds)} seed{'s' if len(comparison.seeds) > 1 else ''}"
    return f"{archs}, {cards[0].data}, {seeds}"


def _evaluate(comparison: "Comparison", evaluation: list[str]) -> None:
    from zoo.comparison.plan import run_command

    for contender in comparison.contenders:
        for run in comparison.runs(contender):
            run_command(["evaluate", str(run.folder), *evaluation], f"evaluating {run.folder}")


def _write_page(comparison: "Comparison") -> None:
    """Write the report on all runs, in the order of the contenders."""
    from zoo.report import write_report
    from zoo.screen import stages

    folders = [folder for contender in comparison.contenders for folder in comparison.folders(contender)]
    with stages("writing the page") as say:
        written = write_report(folders, comparison.folder / PAGE, say=say)
    print(f"page in {written.page}")


def _latencies(comparison: "Comparison") -> dict[str, float]:
    """Return the median latency at batch 1 of each contender's first run, all timed in turns."""
    from zoo.cli.bench import open_target
    from zoo.latency.measure import measure
    from zoo.latency.session import default_threads, resolve_device

    first = {x.name: comparison.folders(x)[0] for x in comparison.contenders}
    targets = [open_target(folder) for folder in first.values()]
    for folder, target in zip(first.values(), targets, strict=True):
        if target.metadata.precision != "fp32":
            raise UserError(
                f"{target.path} is in {target.metadata.precision}, its accuracies are those of fp32: write it anew, "
                f"zoo export {folder}"
            )
    files = [target.path for target in targets]
    found = measure(
        files, device=resolve_device("auto"), threads=default_threads(), batches=(1,), rounds=5, seconds=0.3
    )
    return {name: timing.latency[1].median_ms for name, timing in zip(first, found, strict=True)}
