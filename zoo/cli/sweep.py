"""Search hyper-parameters by Optuna: accuracy under attack against size and latency, in any number of processes.

zoo sweep --config RECIPE --search lr=0.02:0.2:log tau=0.1,1,9 --objective cr,latency --trials 20. What follows `--`
goes to every `zoo train`. The same command in another shell, or on another machine with the same --storage and --out,
works on the same sweep; after a kill it goes on. With --engine ray the workers of a cluster do the trials. Each trial
is a RUN; sweep.html shows the Pareto front and which options matter; best.yaml is a recipe for `zoo train --config`.
"""

from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli._engine import add_engine, engine_of
from zoo.cli._parser import Parser
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.runs.config import TrainConfig

TASK = "train"
SEARCH_HELP = (
    "Options of `zoo train` and their values: KEY=LOW:HIGH, KEY=LOW:HIGH:log, KEY=VALUE,VALUE; a plugin's option may "
    "stand without its flag, such as tau for method.tau."
)
FORBIDDEN = ("--out", "--resume", "--overwrite")


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, work on trials until none is left, and print what to do next."""
    if find_spec("optuna") is None:
        raise UserError("zoo sweep needs Optuna: pip install 'robust-zoo[sweep]'")
    own, shared = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])

    from zoo.tuning import Command, Settings, work_on

    parser.add_argument("--config", type=str, required=True, help="YAML file or a recipe's name, as for `zoo train`.")
    parser.add_argument("--search", nargs="+", type=str, required=True, metavar="KEY=VALUES", help=SEARCH_HELP)
    parser.add_fields(Settings)
    add_engine(parser)
    parsed = parser.parse_args(own)
    engine, options = engine_of(parsed), parsed.as_dict()
    words = ("--config", options["config"], *_checked(shared))
    settings = Settings(**{field.name: options[field.name] for field in fields(Settings)})
    command = Command(words, tuple(options["search"]), settings, _read, str(Path.cwd()))
    sweep = command.open()

    from zoo.screen import note

    if engine is None:
        sweep.work(note)
    else:
        work_on(engine, sweep, command, note)
    _show(sweep)


def _read(words: list[str]) -> "tuple[TrainConfig, dict[str, Any]]":
    from zoo.cli.train import read_recipe

    config, plugins, _ = read_recipe(Parser(prog="zoo train"), words)
    return config, plugins


def _checked(shared: list[str]) -> list[str]:
    for flag in FORBIDDEN:
        if any(word == flag or word.startswith(f"{flag}=") for word in shared):
            raise UserError(f"{flag} is what a sweep sets for each trial: leave it out after --")
    return shared


def _show(sweep: Any) -> None:
    from collections import Counter

    from zoo.tuning.figures import gather
    from zoo.tuning.write import BEST, PAGE

    found = gather(sweep.study, sweep.plan.identity)
    states = Counter(trial.state for trial in found.trials)
    if not any(trial.figures for trial in found.trials):
        if states["running"] or states["waiting"]:
            print(f"no trial is finished yet, {states['running']} still run in other processes")
            return
        last = found.trials[-1]
        raise UserError(
            f"no trial of {len(found.trials)} was finished; the last, {last.name}: {last.note or last.state}"
        )
    print(", ".join(f"{count} {state}" for state, count in states.items()))
    if found.best is None:
        print(f"no trial can be believed: see {sweep.folder / PAGE}")
        return
    for trial in found.front:
        values = ", ".join(f"{key} {value}" for key, value in trial.values.items())
        figures = ", ".join(f"{key} {value:.6g}" for key, value in trial.figures.items())
        print(f"{'best ' if trial == found.best else '     '}{trial.name}: {figures} ({values})")
    print(f"\npage in {sweep.folder / PAGE}\nnext: zoo train --config {sweep.folder / BEST}")
