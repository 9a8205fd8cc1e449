"""A data set's name with its options, such as ``imagefolder(test_fraction=0.2)``: which images are meant."""

from typing import Any

import yaml

from zoo.errors import UserError
from zoo.plugins.spec import PluginSpec


def data_name(data: str) -> str:
    """Return the name alone.

    Raises:
        UserError: it is malformed.
    """
    return PluginSpec.parse(data, "--data").name if data else ""


def with_options(data: str, **options: Any) -> str:
    """Return a data set with further options; those that are None or False are left out.

    >>> with_options("imagefolder", test_fraction=0.2, skip_corrupt=False)
    'imagefolder(test_fraction=0.2)'

    Raises:
        UserError: an option is given twice with two values.
    """
    added = {key: str(value).lower() for key, value in options.items() if value is not None and value is not False}
    if not added:
        return data
    spec = PluginSpec.parse(data, "--data")
    for key in added.keys() & spec.options.keys():
        if yaml.safe_load(spec.options[key]) != yaml.safe_load(added[key]):
            raise UserError(f"--data {data} has another {key} than --{key.replace('_', '-')} {added[key]}: give one")
    inside = ", ".join(f"{key}={value}" for key, value in (spec.options | added).items())
    return f"{spec.name}({inside})"


def parsed_options(data: str, known: dict[str, type]) -> tuple[str, dict[str, Any]]:
    """Return the name and the options with their types.

    Args:
        data: a name with or without options.
        known: the data set's options.

    Raises:
        UserError: it does not have such an option, or a value has the wrong type.
    """
    spec = PluginSpec.parse(data, "--data")
    values: dict[str, Any] = {}
    for key, text in spec.options.items():
        flag = f"--{key.replace('_', '-')}"
        if key not in known:
            has = f"; it has {', '.join(known)}" if known else ""
            raise UserError(f"the data set {spec.name} has no option {key} ({flag}): leave it out{has}")
        value = text if known[key] is str else yaml.safe_load(text)
        if known[key] is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, known[key]):
            raise UserError(f"{flag} {text}: give a {'number' if known[key] is float else known[key].__name__}")
        values[key] = value
    return spec.name, values
