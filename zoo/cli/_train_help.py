"""The help of ``zoo train``, made from the docstrings of the dataclasses without PyTorch; common options come first."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from zoo.cli._engine import ENGINE_HELP, WORKERS_HELP
from zoo.cli._plugin_flags import FLAGS
from zoo.cli._request import Request
from zoo.cli._source import ClassText, FieldText, read_class
from zoo.cli.train import CONFIG_HELP, OVERWRITE_HELP, RESUME_HELP
from zoo.screen import NARROW

COMMON = (
    "arch", "data", "data_dir", "method", "adversary", "compression", "epochs", "lr", "batch_size", "out", "device",
)  # fmt: skip
ADVERSARIAL = ("eps", "eps_ramp", "steps", "awp", "monitor")
START = ("weights", "init", "pretrained", "stem")
LIGHTNING = "see lightning.ai/docs/pytorch/stable/common/trainer.html"
METAVARS = {"int": "N", "float": "X", "str": "NAME", "Path": "PATH", "bool": "true|false"}
COLUMN, BELOW, WIDEST = 24, 6, 100
"""The columns at which texts begin, beside their flags and on a narrow screen below them, and on a wide one end."""

Row = tuple[str, str]
"""A flag with what follows it, and its text."""


def train_help(request: Request) -> str:
    """Return the help, with the options of the plugins that a command line names.

    Raises:
        UserError: there is no plugin of a name.
    """
    plugins = {flag: FLAGS[flag].read(name) for flag, name in request.names.items()}
    options = {field.name: option_row(field) for field in read_class("zoo.runs.config", "TrainConfig").fields}
    options |= {flag: plugin_row(flag) for flag in FLAGS}
    options["trainer"] = ("--trainer.NAME X", LIGHTNING)
    placed = {*COMMON, *ADVERSARIAL, *START, "trainer"}
    groups = {
        "common options": [("--config RECIPE", CONFIG_HELP), *(options[name] for name in COMMON)],
        "the recipe in detail": [row for name, row in options.items() if name not in placed],
        "adversarial training": [options[name] for name in ADVERSARIAL],
        "start": [
            *(options[name] for name in START),
            ("--resume RUN", RESUME_HELP),
            ("--overwrite true", OVERWRITE_HELP),
            ("--engine ray", ENGINE_HELP),
            ("--workers N", WORKERS_HELP),
            ("--print_config", "Print the resulting configuration, and exit."),
        ],
    }
    for flag, text in plugins.items():
        if text.fields:
            groups[f"--{flag} {request.names[flag]}: {text.summary}"] = own_rows(flag, text)
    groups["options of Lightning's Trainer, such as --trainer.devices 2"] = [options["trainer"]]
    narrow = shutil.get_terminal_size().columns < NARROW
    head = [
        "usage: zoo train [--config RECIPE] [OPTION VALUE ...]\n",
        "Train a compressed, robust version of a backbone and evaluate it.\n",
        "  zoo train --data cifar10 --data-dir DIR --compression 0.8 \\",
        "      --method 'robust_lowrank(tau=0.2)' --adversary fgsm_rs --epochs 20\n",
    ]
    foot = [
        "Options of another method or adversary: `zoo train --method lowrank --help`.",
        "They are given by flags (--method.tau 0.2) or with the name, in quotes:",
        "--method 'robust_lowrank(tau=0.2, convolution=tucker)'; so too in YAML.",
        "--quiet: results and errors only, no progress.",
    ]
    return "\n".join(
        [*head, *lines_of(groups), *(textwrap.wrap(" ".join(foot), width_of_screen()) if narrow else foot)]
    )


def option_row(field: FieldText, prefix: str = "") -> Row:
    """Return the flag of a field with what follows it, and its text with the default."""
    flag = f"--{prefix}{field.name}" if prefix else f"--{field.name.replace('_', '-')}"
    if field.choices:
        value = "{" + ",".join(field.choices) + "}"
    else:
        value = METAVARS.get("float" if "float" in field.types else field.types[0], "X")
    return f"{flag} {value}", field.text + default_of(field)


def default_of(field: FieldText) -> str:
    """Return the default as a command line writes it, or nothing if the text alone explains it."""
    if field.default is None:
        return ""
    shown = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f" Default {shown}."


def plugin_row(flag: str) -> Row:
    """Return the flag that names a plugin, with all names."""
    kind = FLAGS[flag]
    return f"--{flag} {kind.kind.upper()}", f"One of {', '.join(kind.names())}. Default {kind.default}."


def own_rows(flag: str, plugin: ClassText) -> list[Row]:
    """Return a plugin's own options."""
    return [option_row(field, f"{flag}.") for field in plugin.fields]


def width_of_screen() -> int:
    """Return the columns that a help text takes."""
    return max(BELOW + 30, min(shutil.get_terminal_size().columns, WIDEST))


def lines_of(groups: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Yield titles and rows, wrapped to the width of the screen, with an empty line after each group."""
    width = width_of_screen()
    column = COLUMN if width >= NARROW else BELOW
    for title, rows in groups.items():
        yield from textwrap.wrap(f"{title.removesuffix('.')}:", width)
        for flag, text in rows:
            beside = len(flag) + 4 <= column
            if not beside:
                yield f"  {flag}"
            first = f"  {flag}".ljust(column) if beside else " " * column
            yield from textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * column)
        yield ""
