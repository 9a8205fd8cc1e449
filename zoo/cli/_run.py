"""The arguments of every command that takes a run or a published model."""

from zoo.cli._parser import Parser

HUB_HELP = (
    "Hubs to search, separated by commas: folders, https://, hf://ORG/REPO, s3://... (default: ZOO_HUB; the one that "
    "comes with zoo is always the last)."
)


def add_run(parser: Parser) -> None:
    """Add RUN, a folder or a name, and the hubs that names are looked up in."""
    parser.add_argument(
        "run",
        type=str,
        metavar="RUN",
        help="Folder of a finished training, or a published model's name (see zoo list).",
    )
    add_hub(parser)


def add_hub(parser: Parser) -> None:
    """Add the hubs that names are looked up in."""
    parser.add_argument("--hub", type=str | None, default=None, help=HUB_HELP)
