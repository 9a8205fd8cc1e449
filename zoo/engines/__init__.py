"""Engines that run the parts of a command in other processes, here or on a cluster: one engine is one file."""

import dataclasses

from pydantic import TypeAdapter, ValidationError

from zoo.engines._base import Device, Engine, LostWorker, enter
from zoo.errors import UserError
from zoo.plugins import Plugins
from zoo.plugins.spec import PluginSpec

ENGINES: Plugins[Engine] = Plugins("engine", "zoo.engines", Engine)

__all__ = ["ENGINES", "Device", "Engine", "LostWorker", "enter", "open_engine"]


def open_engine(text: str | None, workers: int | None) -> Engine | None:
    """Return the engine that a command line names, such as ``ray(threads=2)``, or None; nothing is started.

    Args:
        text: a name, with options in parentheses if need be.
        workers: processes that work at once; None: as many as there are processors.

    Raises:
        UserError: there is no such engine, or it is not installed, or an option is wrong.
    """
    if text is None:
        if workers is not None:
            raise UserError("--workers is the number of an engine's processes: give --engine ray too")
        return None
    spec = PluginSpec.parse(text, "--engine")
    ENGINES.check_options(spec.name, spec.options)
    if "workers" in spec.options:
        raise UserError("--engine: give the number of processes as --workers")
    kind = ENGINES.get(spec.name)
    kind.check_installed()
    try:
        return TypeAdapter(kind).validate_python(dict(spec.options) | {"workers": workers})
    except ValidationError as error:
        wrong = error.errors()[0]
        known = next(f.type for f in dataclasses.fields(kind) if f.name == wrong["loc"][0])
        raise UserError(f"--engine: {wrong['loc'][0]} {wrong['input']!r} is not {known}") from None
