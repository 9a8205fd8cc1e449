"""The parser of every command: jsonargparse, with flags made from dataclasses and mistakes reported in one line."""

import dataclasses
import re
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from zoo.errors import UserError, unknown_name
from zoo.files import user_path

set_parsing_settings(docstring_parse_attribute_docstrings=True)

WRONG_TYPE = re.compile(
    r"(?:Expected an? (<class '\w+'>)\. Got|Does not validate against any of the Union subtypes Subtypes: "
    r"(.+) Errors: .*? Given value type: .*? Given) value: (.*)"
)
"""jsonargparse's message for a value that does not have the option's type."""


def _expected(wrong: re.Match[str]) -> str:
    types = re.findall(r"<class '(?:\w+\.)*(\w+)'>", wrong[1] or wrong[2])
    return f"expected {' or '.join(name for name in types if name != 'NoneType')}, got {wrong[3]}"


class Parser(ArgumentParser):
    """An argument parser that raises `UserError` and suggests the nearest option for an unknown one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        """Parse the arguments; a leading ``~`` of a path is the home folder, wherever the path is written."""
        options = super().parse_args(*args, **kwargs)
        for name, value in list(options.items()):
            if isinstance(value, Path):
                options[name] = user_path(value)
            elif isinstance(value, list):
                options[name] = [user_path(item) if isinstance(item, Path) else item for item in value]
        return options

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `UserError` in one line."""
        unknown = re.search(r"unrecognized arguments: (--[^\s=]+)", message)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            raise unknown_name("option", unknown[1], options)
        choice = re.search(r'key "([\w.]+)":\s+Expected a typing.Literal\[(.*?)\]. Got value: (\S+)', message)
        if choice:
            options = [option.strip("' ") for option in choice[2].split(",")]
            raise unknown_name(self._flag(choice[1]), choice[3], options)
        message = re.sub(r'Parser key "([\w.]+)":', lambda key: f"{self._flag(key[1])}:", re.sub(r"\s+", " ", message))
        raise UserError(WRONG_TYPE.sub(_expected, message))

    def _flag(self, key: str) -> str:
        """Return the flag that sets a value, from the value's name: ``rank_fraction`` to ``--rank-fraction``."""
        return next((action.option_strings[0] for action in self._actions if action.dest == key), f"--{key}")

    def add_fields(self, cls: type, skip: tuple[str, ...] = ()) -> None:
        """Add one flag per field of a dataclass; ``rank_fraction`` becomes ``--rank-fraction``."""
        help_texts = {p.arg_name: p.description for p in parse_from_object(cls).params}
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.name in skip:
                continue
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            self.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=hints[field.name],
                default=None if default is dataclasses.MISSING else default,
                help=" ".join((help_texts.get(field.name) or "").split()),
            )
