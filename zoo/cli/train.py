"""Train a compressed, robust version of a backbone and evaluate it."""

import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo.cli._parser import Parser
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.plugins import Plugins
    from zoo.runs.config import TrainConfig

DEFAULTS = {"method": "robust_lowrank", "adversary": "none", "regularize": "none", "finish": "none"}
"""What is plugged in by a flag of its own, and by default."""
OWN_TRAINER_OPTIONS = {
    "max_epochs", "precision", "logger", "callbacks", "default_root_dir", "accelerator", "use_distributed_sampler",
    "enable_checkpointing", "enable_model_summary", "fast_dev_run", "barebones", "plugins",
}  # fmt: skip
"""Options of Lightning's Trainer that other flags set, or that a run cannot do without."""


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, train or resume, and print what to do next."""
    argv, folder = _take_resume(argv)
    if folder is not None:
        if argv:
            raise UserError(f"--resume continues a run as it was configured: leave {argv[0]} out")
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} is not a run: it has no config.yaml")
        argv = ["--config", str(folder / "config.yaml")]
    argv = _configs_first(_with_config_paths(by_name(argv)))
    try:
        config, plugged, overwrite = read_recipe(parser, _with_init(argv) if folder is None else argv)
    except UserError as error:
        raise error if folder is None else UserError(f"{folder / 'config.yaml'}, as it is now: {error}") from None

    from zoo.training.trainer import resume, train

    run = resume(folder, config, *plugged.values()) if folder else train(config, *plugged.values(), overwrite=overwrite)

    from zoo.evaluation import print_card

    print_card(run.card)
    print(f"\nsaved in {run.folder}\nnext: zoo export {run.folder} && zoo bench {run.folder}")


def read_recipe(parser: Parser, argv: list[str]) -> "tuple[TrainConfig, dict[str, Any], bool]":
    """Return the configuration, the plugins by their flag in the order of `plugin_kinds`, and whether to overwrite."""
    argv = _with_config_paths(by_name(argv))
    names = plugin_names(argv)
    add_arguments(parser, names)
    options = parser.parse_args(_with_configs(argv, partial(_with_named_plugins, names=names))).as_dict()

    from zoo.runs.config import TrainConfig

    config = TrainConfig(**{f.name: options[f.name] for f in fields(TrainConfig)})
    config.trainer = _changed_trainer_options(parser, options["trainer"])
    plugged = {flag: kind.get(names[flag])(**without_name(options[flag])) for flag, kind in plugin_kinds().items()}
    return config, plugged, options["overwrite"]


def by_name(argv: list[str]) -> list[str]:
    """Write ``--method`` and its like as ``--method.name``, beside which their own flags stand."""
    return [re.sub(rf"^--({'|'.join(DEFAULTS)})(?=$|=)", r"--\1.name", word) for word in argv]


def _take_resume(argv: list[str]) -> tuple[list[str], Path | None]:
    """Take ``--resume RUN`` out of the arguments."""
    for i, word in enumerate(argv):
        if word.startswith("--resume="):
            return argv[:i] + argv[i + 1 :], Path(word.partition("=")[2])
        if word == "--resume":
            if i + 1 == len(argv):
                raise UserError("--resume needs the folder of a run")
            return argv[:i] + argv[i + 2 :], Path(argv[i + 1])
    return argv, None


def _with_init(argv: list[str]) -> list[str]:
    """Let architecture, method and its options default to those of the model that ``--init`` names."""
    start = _named(argv, "init", None)
    if start is None:
        return argv
    from zoo.hub.runs import read_run

    card = read_run(start).card
    defaults = [f"--arch={card.arch}", f"--method.name={card.method}"]
    if _plugin_name(argv, "method", card.method) == card.method:
        defaults += [f"--method.{name}={value}" for name, value in card.method_options.items() if value is not None]
    return [*defaults, *argv]


def without_name(options: dict[str, Any]) -> dict[str, Any]:
    """Return a plugin's fields."""
    return {key: value for key, value in options.items() if key != "name"}


def plugin_kinds() -> dict[str, "Plugins[Any]"]:
    """Return the kinds of plugins of a training, by their flag, in the order in which `train` takes them."""
    from zoo.adversaries import ADVERSARIES
    from zoo.methods import METHODS
    from zoo.post_training import FINISHERS
    from zoo.regularizers import REGULARIZERS

    return {"method": METHODS, "adversary": ADVERSARIES, "regularize": REGULARIZERS, "finish": FINISHERS}


def plugin_names(argv: list[str]) -> dict[str, str]:
    """Find the plugins' names before parsing, since they decide which flags there are."""
    return {kind: _plugin_name(argv, kind, default) for kind, default in DEFAULTS.items()}


def _plugin_name(argv: list[str], kind: str, name: str) -> str:
    return _named(argv, f"{kind}.name", kind) or name


def _named(argv: list[str], option: str, key: str | None) -> str | None:
    """Return the last value of an option before parsing, on the command line or under a key of a configuration."""
    found = None
    for i, word in enumerate(argv):
        flag, _, value = word.partition("=")
        value = value or (argv[i + 1] if i + 1 < len(argv) else "")
        if flag == "--config":
            found = _name_in_file(Path(value), key or option) or found
        elif flag == f"--{option}":
            found = value
    return found


def _name_in_file(path: Path, kind: str) -> str | None:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"configuration {path} cannot be read: {error}") from None
    plugin = content.get(kind) if isinstance(content, dict) else None
    name = plugin.get("name") if isinstance(plugin, dict) else plugin
    if not isinstance(name, str | None):
        raise UserError(f"configuration {path}: {kind} is {name!r}, which is no name")
    return name


def _config_path(value: str) -> Path:
    """Return the file that ``--config`` names: a path, or the name of a recipe that comes with zoo."""
    from zoo.runs.recipes import recipe_path

    return recipe_path(value)


def _with_config_paths(argv: list[str]) -> list[str]:
    """Replace recipe names after ``--config`` by their paths."""
    return _with_configs(argv, lambda value: str(_config_path(value)))


def _configs_first(argv: list[str]) -> list[str]:
    """Move ``--config`` and what it names to the front, so that flags override it wherever they stand."""
    first: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            first += [word, *islice(words, 1)]
        else:
            (first if word.startswith("--config=") else rest).append(word)
    return first + rest


def _with_configs(argv: list[str], change: Callable[[str], str]) -> list[str]:
    """Change what stands after each ``--config``."""
    result = list(argv)
    for i, word in enumerate(argv):
        if word.startswith("--config="):
            result[i] = f"--config={change(word.partition('=')[2])}"
        elif i and argv[i - 1] == "--config":
            result[i] = change(word)
    return result


def _with_named_plugins(path: str, names: dict[str, str]) -> str:
    """Return a configuration with ``method: NAME`` written as ``method: {name: NAME}``; its path if nothing changes.

    A method that another one overrides goes with its options, which the other does not have.

    Args:
        path: of the configuration.
        names: of the plugins that the training has in the end, by kind.
    """
    content = yaml.safe_load(Path(path).read_text())
    if not isinstance(content, dict):
        return path
    changed = {}
    for kind, name in names.items():
        group = content.get(kind)
        own = group.get("name", name) if isinstance(group, dict) else group
        if isinstance(group, str) or own not in (None, name):
            changed[kind] = {"name": name}
    return yaml.safe_dump(content | changed) if changed else path


def add_arguments(parser: Parser, names: dict[str, str]) -> None:
    """Add every flag of the command, those of the named plugins among them."""
    from lightning.pytorch import Trainer

    from zoo.runs.config import TrainConfig

    parser.add_argument("--config", action="config", help="YAML file of any of these values, or a recipe's name.")
    parser.add_argument("--resume", type=str, metavar="RUN", help="Continue an interrupted run; takes no other option.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace a run that is already there.")
    for flag, kind in plugin_kinds().items():
        add_plugin(parser, flag, kind, names[flag])
    parser.add_fields(TrainConfig, skip=("trainer",))
    parser.add_class_arguments(Trainer, "trainer", skip=OWN_TRAINER_OPTIONS)


def add_plugin(parser: Parser, flag: str, kind: "Plugins[Any]", name: str) -> None:
    """Add the flag that names a plugin, and those of the plugin's own fields."""
    listed = ", ".join(kind.names())
    parser.add_argument(f"--{flag}.name", metavar=kind.kind.upper(), default=name, help=f"One of {listed}.")
    parser.add_class_arguments(kind.get(name), flag)


def _changed_trainer_options(parser: Parser, options: dict[str, Any]) -> dict[str, Any]:
    """Return the Trainer options that differ from Lightning's defaults."""
    defaults = parser.get_defaults().as_dict()["trainer"]
    return {name: value for name, value in options.items() if value != defaults[name]}
