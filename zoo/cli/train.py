"""Train a compressed, robust version of a backbone and evaluate it."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from zoo.cli._parser import Parser
from zoo.cli._plugin_flags import FLAGS
from zoo.cli._request import Request, take
from zoo.errors import UserError
from zoo.files import user_path

if TYPE_CHECKING:
    from zoo.engines import Engine
    from zoo.runs.config import TrainConfig

TASK = "train"
CONFIG_HELP = "YAML file of any of these values, or a recipe's name."
RESUME_HELP = "Continue an interrupted run; takes no other option."
OVERWRITE_HELP = "Replace a run that is already there."
OWN_TRAINER_OPTIONS = {
    "max_epochs", "precision", "logger", "callbacks", "default_root_dir", "accelerator", "use_distributed_sampler",
    "enable_checkpointing", "enable_model_summary", "fast_dev_run", "barebones", "plugins",
}  # fmt: skip
"""Options of Lightning's Trainer that other flags set, or that a run cannot do without."""


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, train or resume, and print what to do next."""
    if "--help" in argv or "-h" in argv:
        from zoo.cli._train_help import train_help

        print(train_help(Request.read([word for word in argv if word not in ("--help", "-h")])))
        raise SystemExit(0)
    engine, argv = _engine(argv)
    folders, argv = take(argv, "--resume", "the folder of a run")
    folder = user_path(folders[-1]) if folders else None
    if folder is not None:
        if argv:
            raise UserError(f"--resume continues a run as it was configured: leave {argv[0]} out")
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} is not a run: it has no config.yaml")
        argv = ["--config", str(folder / "config.yaml")]
    try:
        config, plugged, overwrite = read_recipe(parser, argv)
    except UserError as error:
        raise error if folder is None else UserError(f"{folder / 'config.yaml'}, as it is now: {error}") from None

    if engine is not None:
        from zoo.training.spread import train_on

        run = train_on(engine, config, tuple(plugged.values()), overwrite=overwrite, resumed=folder)
    else:
        from zoo.training.trainer import resume, train

        plugins = plugged.values()
        run = resume(folder, config, *plugins) if folder else train(config, *plugins, overwrite=overwrite)

    from zoo.evaluation import print_card

    print_card(run.card)
    print(f"\nsaved in {run.folder}\nnext: zoo export {run.folder} && zoo bench {run.folder}")


def _engine(argv: list[str]) -> "tuple[Engine | None, list[str]]":
    """Take an engine out of a command line, since no recipe has one; return it, and the other words."""
    names, argv = take(argv, "--engine", "a name, such as ray")
    numbers, argv = take(argv, "--workers", "a number")
    if numbers and not numbers[-1].isdecimal():
        raise UserError(f"--workers: expected int, got {numbers[-1]}")

    from zoo.engines import open_engine

    return open_engine(names[-1] if names else None, int(numbers[-1]) if numbers else None), argv


def read_recipe(parser: Parser, argv: list[str]) -> "tuple[TrainConfig, dict[str, Any], bool]":
    """Return the configuration, the plugins by their flag in the order of `FLAGS`, and whether to overwrite."""
    request = Request.read(argv)
    words = request.words()
    add_arguments(parser, request.names)
    options = parser.parse_args(words).as_dict()

    from zoo.runs.config import TrainConfig

    values = {f.name: options[f.name] for f in fields(TrainConfig) if f.name != "trainer"}
    _check_no_null(TrainConfig, values, "")
    config = TrainConfig(**values, trainer=_changed_trainer_options(parser, options["trainer"]))
    plugged = {flag: plugged_in(flag, name, options[flag]) for flag, name in request.names.items()}
    _check_steps(request, plugged["adversary"])
    return config, plugged, options["overwrite"]


def _check_steps(request: Request, adversary: Any) -> None:
    """Refuse ``--steps`` where there is one step; a recipe may have it, since another adversary can be put in it."""
    if adversary.single_step is not None and any(word.partition("=")[0] == "--steps" for word in request.flags):
        name = request.names["adversary"]
        raise UserError(f"--steps: {name} takes one gradient step: leave --steps out")


def plugged_in(flag: str, name: str, options: dict[str, Any]) -> Any:
    """Return a plugin with the options that were parsed.

    Raises:
        UserError: the plugin refuses a value.
    """
    plugin, options = FLAGS[flag].plugins().get(name), {key: x for key, x in options.items() if key != "name"}
    _check_no_null(plugin, options, f"{flag}.")
    return plugin(**options)


def _check_no_null(cls: type, values: dict[str, Any], prefix: str) -> None:
    """Check that no value is null, which YAML allows anywhere, unless the field gives null a meaning."""
    hints = get_type_hints(cls)
    for name, value in values.items():
        if value is None and type(None) not in get_args(hints[name]):
            raise UserError(f"{prefix}{name} is null: give it a value, or leave it out for its default")


def add_arguments(parser: Parser, names: dict[str, str]) -> None:
    """Add every flag of the command, including those of the named plugins."""
    from lightning.pytorch import Trainer

    from zoo.runs.config import TrainConfig

    parser.add_argument("--config", action="config", help=CONFIG_HELP)
    parser.add_argument("--resume", type=str, metavar="RUN", help=RESUME_HELP)
    parser.add_argument("--overwrite", type=bool, default=False, help=OVERWRITE_HELP)
    for flag, name in names.items():
        add_plugin(parser, flag, name)
    parser.add_fields(TrainConfig, skip=("trainer",))
    parser.add_class_arguments(Trainer, "trainer", skip=OWN_TRAINER_OPTIONS)


def add_plugin(parser: Parser, flag: str, name: str) -> None:
    """Add the flag that names a plugin, and those of the plugin's own fields."""
    kind = FLAGS[flag].plugins()
    listed = ", ".join(kind.names())
    parser.add_argument(f"--{flag}.name", metavar=kind.kind.upper(), default=name, help=f"One of {listed}.")
    parser.add_class_arguments(kind.get(name), flag)


def describe_plugin(parser: Parser, flag: str, name: str) -> None:
    """Add the same flags only for a help text, without importing the plugin."""
    kind = FLAGS[flag]
    listed = ", ".join(kind.names())
    parser.add_argument(f"--{flag}", metavar=kind.kind.upper(), default=name, help=f"One of {listed}.")
    for field in kind.read(name).fields:
        parser.add_argument(f"--{flag}.{field.name}", default=field.default, help=field.text)


def _changed_trainer_options(parser: Parser, options: dict[str, Any]) -> dict[str, Any]:
    """Return the Trainer options that differ from Lightning's defaults."""
    defaults = parser.get_defaults().as_dict()["trainer"]
    return {name: value for name, value in options.items() if value != defaults[name]}
