"""Find models in several hubs: the requested ones, in order, then the one that comes with zoo."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.request import url2pathname

from zoo.errors import UserError
from zoo.hub._base import Hub
from zoo.hub.cache import fetch
from zoo.hub.download import read_index
from zoo.hub.folder import FolderHub
from zoo.hub.huggingface import HuggingFaceHub
from zoo.hub.index import Entry
from zoo.hub.names import unknown_model
from zoo.hub.remote import RemoteHub
from zoo.hub.web import WebHub

BUNDLED = Path(__file__).parent / "bundled"
"""The hub that comes with zoo."""
KINDS: dict[str, type[Hub]] = {"http": WebHub, "https": WebHub, "hf": HuggingFaceHub}


def open_hub(address: str) -> Hub:
    """Return the hub at an address: a folder, http(s)://, hf://ORG/REPO, or anything that fsspec opens.

    Raises:
        UserError: it is none of these.
    """
    scheme = re.match(r"([a-z][a-z0-9+.\-]*)://", address, flags=re.IGNORECASE)
    if scheme is None:
        return FolderHub(address)
    if scheme[1].lower() == "file":
        return FolderHub(_local_path(address))
    return KINDS.get(scheme[1].lower(), RemoteHub)(address)


def _local_path(address: str) -> str:
    path = re.sub(r"^file://(localhost(?=/))?", "", address, flags=re.IGNORECASE)
    if not path.startswith("/"):
        raise UserError(f"{address} names no folder of this machine: write file:///FOLDER, or the folder alone")
    return url2pathname(path)


def hubs(addresses: str | Path | None = None) -> list[Hub]:
    """Return the hubs to search, in order.

    Args:
        addresses: separated by commas; None: those in ``ZOO_HUB``. The hub that comes with zoo is always the last.
    """
    asked = str(addresses) if addresses is not None else os.environ.get("ZOO_HUB", "")
    words = [word.strip() for word in asked.split(",") if word.strip()]
    return [open_hub(address) for address in dict.fromkeys([*words, str(BUNDLED)])]


@dataclass(frozen=True)
class Found:
    """A published model and the hub that has it."""

    hub: Hub
    name: str
    entry: Entry

    def folder(self, progress: bool = True) -> Path:
        """Return a folder with its files, downloaded if necessary; see `zoo.hub.cache.fetch`."""
        return fetch(self.hub, self.name, self.entry, progress)

    def card_file(self) -> Path:
        """Return the path of its card; nothing else is downloaded for it."""
        alone = self.entry.model_copy(update={"files": {"card.json": self.entry.files["card.json"]}})
        return fetch(self.hub, self.name, alone, progress=False) / "card.json"


def published(addresses: str | Path | None = None) -> dict[str, Found]:
    """Return every model of the hubs, by name; if two have one name, the one in the earlier hub.

    Raises:
        UserError: a hub cannot be read.
    """
    models: dict[str, Found] = {}
    for hub in hubs(addresses):
        for name, entry in read_index(hub).models.items():
            models.setdefault(name, Found(hub, name, entry))
    return models


def find(name: str, addresses: str | Path | None = None) -> Found:
    """Find a model by name: the first hub that has it counts, and one that cannot be read ends the search.

    Raises:
        UserError: no hub has it; the message has the nearest names.
    """
    known: list[str] = []
    searched = hubs(addresses)
    for hub in searched:
        models = read_index(hub).models
        if name in models:
            return Found(hub, name, models[name])
        known += models
    places = " and ".join("the bundled hub" if hub.address == str(BUNDLED) else hub.address for hub in searched)
    raise unknown_model(name, known, places)
