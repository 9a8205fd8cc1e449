"""Download a published model and check it, file by file; files that are already there are not fetched again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub

if TYPE_CHECKING:
    from zoo.hub.search import Found

TASK = "share"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, download, and print where the model is."""
    parser.add_argument("name", type=str, metavar="NAME", help="A model's name, see `zoo list`.")
    parser.add_argument("--to", type=Path | None, default=None, help="Folder to put it into, as DIR/NAME.")
    parser.add_argument(
        "--compression",
        type=float | None,
        default=None,
        help="Of a nested model: fetch only what this size needs, and write it as a run of that size alone.",
    )
    add_hub(parser)
    options = parser.parse_args(argv)

    from zoo.hub.names import check_name
    from zoo.hub.runs import copy_model
    from zoo.hub.search import find

    found = find(options.name, options.hub)
    if options.compression is not None:
        from zoo.hub.partial import download_size
        from zoo.hub.runs import RUNS

        name = f"{check_name(options.name)}-{options.compression:g}"
        target = (RUNS if options.to is None else options.to) / name
        folder, fetched = download_size(found, options.compression, target)
        print(f"{found.name} at {options.compression:g}: {fetched / 1e6:.2f} of {_weights_mb(found):.2f} MB of weights")
        print(f"in {folder}")
        return
    folder = found.folder() if options.to is None else copy_model(found, options.to / check_name(options.name))
    print(f"{found.name}: {found.entry.bytes / 1e6:.2f} MB, every SHA-256 as in the index of {found.hub.address}")
    print(f"in {folder}")


def _weights_mb(found: Found) -> float:
    return found.entry.files["model.safetensors"].bytes / 1e6
