"""The arguments of the commands that an engine can spread over processes and machines."""

from typing import TYPE_CHECKING, Any

from zoo.cli._parser import Parser

if TYPE_CHECKING:
    from zoo.engines import Engine

ENGINE_HELP = "Work in processes of an engine: ray, or 'ray(address=HOST:PORT)'; see docs/clusters.md."
WORKERS_HELP = "Processes of --engine; default: one for each processor of its machines."


def add_engine(parser: Parser) -> None:
    """Add the flags that name an engine and the number of its workers."""
    parser.add_argument("--engine", type=str | None, default=None, help=ENGINE_HELP)
    parser.add_argument("--workers", type=int | None, default=None, help=WORKERS_HELP)


def engine_of(options: Any) -> "Engine | None":
    """Return the requested engine, if any; nothing is started."""
    from zoo.engines import open_engine

    return open_engine(options.engine, options.workers)
