"""Download a published model and check it, file by file; files that are already there are not fetched again."""

from pathlib import Path

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub

TASK = "share"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, download, and print where the model is."""
    parser.add_argument("name", type=str, metavar="NAME", help="A model's name, see `zoo list`.")
    parser.add_argument("--to", type=Path | None, default=None, help="Folder to put it into, as DIR/NAME.")
    add_hub(parser)
    options = parser.parse_args(argv)

    from zoo.hub.names import check_name
    from zoo.hub.runs import copy_model
    from zoo.hub.search import find

    found = find(options.name, options.hub)
    folder = found.folder() if options.to is None else copy_model(found, options.to / check_name(options.name))
    print(f"{found.name}: {found.entry.bytes / 1e6:.2f} MB, every SHA-256 as in the index of {found.hub.address}")
    print(f"in {folder}")
