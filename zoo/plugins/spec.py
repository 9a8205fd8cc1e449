"""A plugin's name with its options, written as ``robust_lowrank(tau=0.2, convolution=tucker)``.

The command line, ``zoo compare`` and YAML files read the same text. Values stay text: the parser of the command line
gives them their types, as it does for ``--method.tau 0.2``.
"""

import re
from dataclasses import dataclass, field
from typing import NoReturn

from zoo.errors import UserError

FORM = "write name(key=value, key=value), such as 'robust_lowrank(tau=0.2, convolution=tucker)'"
HEAD = re.compile(r"\s*([\w.-]+)\s*(?:\((?P<inside>.*)\)\s*|,(?P<after>.*))?", re.DOTALL)
"""A name, alone, before options in parentheses, or before options after commas."""
SETTING = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*", re.DOTALL)
CLOSING = {"[": "]", "{": "}"}
QUOTES = "'\""


@dataclass(frozen=True)
class PluginSpec:
    """A plugin by name, with its given options.

    Attributes:
        name: of the plugin, which need not exist.
        options: as text, in the order in which they are written.
    """

    name: str
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, where: str = "") -> "PluginSpec":
        """Read ``NAME``, ``NAME(KEY=VALUE, ...)`` or ``NAME,KEY=VALUE,...``.

        A value is a number, a word, a list in brackets, or anything in quotes.

        >>> PluginSpec.parse("robust_lowrank(tau=0.2, convolution=tucker)")
        PluginSpec(name='robust_lowrank', options={'tau': '0.2', 'convolution': 'tucker'})

        Args:
            text: to parse.
            where: its place, for the message, such as ``"--method"``.

        Raises:
            UserError: it is malformed, or gives an option twice.
        """
        whole = HEAD.fullmatch(text)
        if whole is None:
            _refuse(text, where, _what_is_wrong(text))
        inside = whole["inside"] if whole["inside"] is not None else whole["after"]
        options: dict[str, str] = {}
        for setting in _split(inside, text, where) if inside is not None else []:
            key_and_value = SETTING.fullmatch(setting)
            if key_and_value is None or not key_and_value[2]:
                wrong = f"{setting.strip()!r} is not key=value" if setting.strip() else "an option is empty"
                _refuse(text, where, wrong)
            key, value = key_and_value[1], key_and_value[2]
            if key in options:
                raise UserError(f"{_place(where)}{text!r} gives {key} twice: leave one out")
            options[key] = value[1:-1] if len(value) > 1 and value[0] == value[-1] in QUOTES else value
        return cls(whole[1], options)


def _split(text: str, whole: str, where: str) -> list[str]:
    """Split at commas outside brackets and quotes; a trailing comma or an empty text adds no option."""
    parts, expected, quote = [""], "", ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in QUOTES and parts[-1].rstrip()[-1:] in ("=", "[", "{", ",", ":"):
            quote = c
        elif c in CLOSING:
            expected += CLOSING[c]
        elif expected and c == expected[-1]:
            expected = expected[:-1]
        elif c in "()":
            _refuse(whole, where, "options cannot be nested")
        elif c == "," and not expected:
            parts.append("")
            continue
        parts[-1] += c
    if quote or expected:
        _refuse(whole, where, f"{quote or expected[-1]} is missing at the end")
    return parts if parts[-1].strip() else parts[:-1]


def _what_is_wrong(text: str) -> str:
    if "(" in text and not text.rstrip().endswith(")"):
        return "text stands after the )" if ")" in text else "the ) is missing"
    return "there is no name" if not re.match(r"\s*[\w.-]", text) else "the name is followed by neither ( nor ,"


def _refuse(text: str, where: str, why: str) -> NoReturn:
    raise UserError(f"{_place(where)}{' '.join(text.split())!r} cannot be read: {why}; {FORM}")


def _place(where: str) -> str:
    return f"{where}: " if where else ""
