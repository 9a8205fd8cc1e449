"""The parser of every command: jsonargparse, with flags made from dataclasses and mistakes told in one line."""

import dataclasses
import re
from typing import Any, NoReturn, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, set_parsing_settings

from zoo.errors import UserError, unknown_name

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class Parser(ArgumentParser):
    """An argument parser that raises `UserError`, naming the nearest option for one it does not know."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `UserError` in one line."""
        unknown = re.search(r"unrecognized arguments: (--[^\s=]+)", message)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            raise unknown_name("option", unknown[1], options)
        choice = re.search(r'key "([\w.]+)":\s+Expected a typing.Literal\[(.*?)\]. Got value: (\S+)', message)
        if choice:
            options = [option.strip("' ") for option in choice[2].split(",")]
            raise unknown_name(f"--{choice[1].replace('_', '-')}", choice[3], options)
        raise UserError(re.sub(r"\s+", " ", f"{self.prog}: {message}"))

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
