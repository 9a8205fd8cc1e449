"""A page for each method, from its docstring, its options and the cards of its models."""

import inspect
import sys

from model_pages import cards, models_table
from tables import table, with_papers

from zoo.cli._source import FieldText, read_plugin
from zoo.methods import METHODS


def method_pages() -> dict[str, str]:
    """Return the pages by their path on the site."""
    pages = {f"methods/{name}.md": _page(name) for name in METHODS.names()}
    rows = [(f"[`{name}`]({name}.md)", text) for name, text in METHODS.describe().items()]
    intro = "# Methods\n\nEvery method trains with every adversary. [A method is one file](../adding_a_method.md).\n\n"
    return pages | {"methods/index.md": intro + table(("method", "what it is"), rows) + "\n"}


def _page(name: str) -> str:
    cls = METHODS.get(name)
    _, _, source = (inspect.getdoc(sys.modules[cls.__module__]) or "").partition("\n")
    options = read_plugin("method", "zoo.methods", name).fields
    parts = [
        f"# {name}",
        with_papers(inspect.getdoc(cls) or ""),
        with_papers(source.strip()),
        f"```sh\nzoo train --arch resnet18 --method {name}\nzoo train --method {name} --help\n```",
        "## Options",
        table(("option", "default", "what it does"), map(_option, options)) if options else "It has none.",
        "## Models",
        _models(name),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _option(field: FieldText) -> tuple[str, str, str]:
    choices = f" One of {', '.join(f'`{choice}`' for choice in field.choices)}." if field.choices else ""
    return f"`--method.{field.name}`", f"`{field.default}`", f"{field.text}{choices}"


def _models(name: str) -> str:
    found = [card for card in cards().values() if card.method == name]
    if not found:
        return "No model of this method is published. [Compressing](../compressing.md) compares the methods."
    return models_table(found, "../models/")
