"""The request for a training on a command line, read before its plugins, and with them its options, are known."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from zoo.cli._plugin_flags import FLAGS
from zoo.cli._source import read_class
from zoo.errors import UserError, unknown_name
from zoo.plugins.spec import PluginSpec
from zoo.runs.recipes import recipe_path

Settings = dict[str, Any]
"""Values by their keys in a configuration; a plugin's is a mapping of its name and options."""
UNREADABLE = (OSError, yaml.YAMLError, ValueError, RecursionError)
"""Exceptions of a damaged YAML file: ValueError for bytes that are no text and for dates that do not exist."""


@dataclass(frozen=True)
class Request:
    """The configurations and flags of one command line.

    Attributes:
        settings: of all configurations, later ones over earlier ones.
        flags: the other words, with ``--method 'NAME(KEY=VALUE)'`` taken apart into a flag for each value.
        names: of the resulting plugins, by flag.
    """

    settings: Settings
    flags: list[str]
    names: dict[str, str]

    @classmethod
    def read(cls, argv: list[str]) -> "Request":
        """Read the configurations that a command line names, and find the plugins.

        Raises:
            UserError: a configuration cannot be read, or a plugin's name is malformed.
        """
        files, words = take(argv, "--config", "a YAML file or a recipe's name")
        settings: Settings = {}
        for file in files:
            _merge(settings, read_configuration(recipe_path(file)))
        starts, _ = take(words, "--init", "a RUN or a published name")
        if start := starts[-1] if starts else settings.get("init"):
            settings = _merge(_settings_of(str(start)), settings)
        named: dict[str, str | None] = {}
        for flag in FLAGS:
            words, named[flag] = _expanded(words, flag)
            group = settings.get(flag, {})
            if named[flag] and group.get("name", named[flag]) != named[flag]:
                settings[flag] = {}  # the options of a replaced plugin are dropped with it
                if start and flag == "method":
                    settings[flag] = _form(group, str(named[flag]))
        names = {flag: named[flag] or settings.get(flag, {}).get("name") or FLAGS[flag].default for flag in FLAGS}
        return cls(settings, words, names)

    def words(self) -> list[str]:
        """Return the command line for a parser that has the plugins' options: the settings, then the flags over them.

        Raises:
            UserError: there is no plugin of a name, or it does not have the given options.
        """
        settings, flags = dict(self.settings), self.flags
        for flag, name in self.names.items():
            plugins, options = FLAGS[flag].plugins(), dict(settings.get(flag, {}))
            options.pop("name", None)
            given = {key for key in (_option(word, flag) for word in flags) if key}
            plugins.check_options(name, options)
            options = plugins.current(name, options, f"--{flag}")
            present = {key: next(iter(plugins.current(name, {key: ""}, ""))) for key in given}
            flags = [_renamed(word, flag, present) for word in flags]
            if flag in settings:
                settings[flag] = {"name": name, **options}
        return ([f"--config={yaml.safe_dump(settings)}"] if settings else []) + flags


def take(argv: list[str], flag: str, what: str) -> tuple[list[str], list[str]]:
    """Remove a flag from the words, at any place; return its values, and the other words.

    Raises:
        UserError: nothing follows it; ``what`` should.
    """
    values, rest, words = [], [], iter(argv)
    for word in words:
        if word == flag:
            value = next(words, None)
            if value is None:
                raise UserError(f"{flag} needs {what}")
            values.append(value)
        elif word.startswith(f"{flag}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return values, rest


def read_configuration(path: Path) -> Settings:
    """Return the settings of a YAML file; keys that only hold an anchor for other values are left out.

    Raises:
        UserError: it cannot be read, has a key that is not an option, or names a plugin in a malformed way.
    """
    where = f"configuration {path}"
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        helpers = set(_anchored_keys(text))
    except UNREADABLE as error:
        raise UserError(f"{where} cannot be read: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where} must be a mapping of options to values, such as `epochs: 20`")
    known = [field.name for field in read_class("zoo.runs.config", "TrainConfig").fields]
    known += [*FLAGS, "overwrite"]
    settings = {key: value for key, value in content.items() if key in known or key not in helpers}
    for key in settings:
        if key in ("config", "resume"):
            raise UserError(f"{where}: {key} is not an option of a configuration: give --{key} on the command line")
        if key not in known:
            raise UserError(f"{where}: {unknown_name('option', str(key), known, 'zoo train --help')}")
    for flag in FLAGS.keys() & settings.keys():
        settings[flag] = _plugin(settings[flag], flag, where)
    trainer = settings.pop("trainer", None)
    if not isinstance(trainer, dict | None):
        raise UserError(f"{where}: trainer is {trainer!r}; write options of Lightning's Trainer under it, one a line")
    return settings | ({"trainer": trainer} if trainer else {})


def _plugin(value: Any, flag: str, where: str) -> Settings:
    """Return ``{name: NAME, KEY: VALUE, ...}`` for a plugin that is written in any of its forms."""
    options = {str(key): option for key, option in value.items()} if isinstance(value, dict) else {"name": value}
    if "name" not in options:
        return options
    name = options.pop("name")
    if name is None:
        raise UserError(f"{where}: {flag} has no value: name one of `zoo list --{FLAGS[flag].lists}`, or leave it out")
    if not isinstance(name, str):
        raise UserError(f"{where}: {flag} is {name!r}, which is not a name: write {flag}: name or name(key=value)")
    spec = PluginSpec.parse(name, f"{where}: {flag}")
    if twice := sorted(spec.options.keys() & options.keys()):
        raise UserError(f"{where}: {flag} gives {twice[0]} twice, in {name!r} and beside it: leave one out")
    return {"name": spec.name, **spec.options, **options}


def _merge(settings: Settings, over: Settings) -> Settings:
    """Override earlier settings by later ones, in place; a plugin of another name also replaces the options."""
    for key, value in over.items():
        before = settings.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and _same_name(before, value):
            settings[key] = _merge(dict(before), value)
        else:
            settings[key] = value
    return settings


def _same_name(one: Settings, other: Settings) -> bool:
    return "name" not in one or "name" not in other or one["name"] == other["name"]


def _settings_of(start: str) -> Settings:
    """Return architecture, method and its options of the model that ``--init`` names."""
    from zoo.hub.runs import read_run

    card = read_run(start).card
    options = {name: value for name, value in card.method_options.items() if value is not None}
    stem = {} if card.stem == "auto" else {"stem": card.stem}
    return {"arch": card.arch, **stem, "method": {"name": card.method, **options}}


def _form(start: Settings, name: str) -> Settings:
    """Return the options that say in which form a start's layers are, for a method of another name."""
    plugins = FLAGS["method"].plugins()
    if "convolution" not in start or name not in plugins.names():
        return {}
    has = "convolution" in {field.name for field in fields(plugins.get(name))}
    return {"name": name, "convolution": start["convolution"]} if has else {}


def _expanded(words: list[str], flag: str) -> tuple[list[str], str | None]:
    """Take ``--FLAG NAME(KEY=VALUE)`` apart where it stands, the last one if there are several; return its name too."""
    result: list[str] = []
    last, at = None, 0
    for form in (f"--{flag}", f"--{flag}.name"):
        words = [f"--{flag}.name={word.partition('=')[2]}" if word.startswith(f"{form}=") else word for word in words]
    rest = iter(words)
    for word in rest:
        if word in (f"--{flag}", f"--{flag}.name"):
            last, at = next(rest, None), len(result)
            if last is None:
                raise UserError(f"--{flag} needs a name: see `zoo list --{FLAGS[flag].lists}`")
        elif word.startswith(f"--{flag}.name="):
            last, at = word.partition("=")[2], len(result)
        else:
            result.append(word)
    if last is None:
        return result, None
    spec = PluginSpec.parse(last, f"--{flag}")
    result[at:at] = [f"--{flag}.{key}={value}" for key, value in {"name": spec.name, **spec.options}.items()]
    return result, spec.name


def _option(word: str, flag: str) -> str | None:
    found = re.match(rf"--{flag}\.([^=]+)", word)
    return found[1] if found else None


def _renamed(word: str, flag: str, present: dict[str, str]) -> str:
    key = _option(word, flag)
    return word if key is None else f"--{flag}.{present[key]}" + word[len(f"--{flag}.{key}") :]


def _anchored_keys(text: str) -> Iterator[str]:
    """Yield the keys at the top of a YAML mapping whose values carry an anchor, such as ``common: &common``."""
    depth, key = 0, None
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            if depth == 1 and key is None:
                key = event.value if isinstance(event, yaml.ScalarEvent) else ""
            elif depth == 1:
                if event.anchor and not isinstance(event, yaml.AliasEvent):
                    yield str(key)
                key = None
            depth += isinstance(event, yaml.CollectionStartEvent)
