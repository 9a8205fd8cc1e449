"""The storage that the processes of a sweep share, and the check that it holds this sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from zoo.errors import UserError, first_line
from zoo.files import user_path
from zoo.tuning.objectives import Direction

if TYPE_CHECKING:
    from optuna.study import Study

NAME = "zoo sweep"
"""Name of the study in its storage."""
PLAN = "plan"
"""Attribute of the study: what makes its trials comparable."""
JOURNAL = "journal.log"
FORM = "give journal:DIR, sqlite:///FILE or another address that SQLAlchemy takes"


def open_storage(text: str) -> BaseStorage:
    """Open ``journal:DIR``, a log file that also works on a network's file system, or a database.

    Raises:
        UserError: it cannot be opened.
    """
    kind, colon, rest = text.partition(":")
    if not colon or not rest:
        raise UserError(f"--storage {text} is not a storage: {FORM}")
    try:
        if kind == "journal":
            folder = user_path(rest)
            folder.mkdir(parents=True, exist_ok=True)
            file = str(folder / JOURNAL)
            # Optuna's default lock is a symbolic link, which Windows refuses to ordinary users.
            return JournalStorage(JournalFileBackend(file, JournalFileOpenLock(file)))
        if kind == "sqlite":
            database = user_path(rest.removeprefix("///"))
            database.parent.mkdir(parents=True, exist_ok=True)
            return RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 100}})
        return RDBStorage(text)
    except Exception as error:  # of the file system, the database's driver, SQLAlchemy or Optuna
        raise UserError(f"--storage {text} cannot be opened ({first_line(error)}): {FORM}") from None


def open_study(storage: BaseStorage, text: str, plan: dict[str, Any], directions: list[Direction]) -> Study:
    """Open the sweep of a storage, or begin it there.

    Args:
        storage: see `open_storage`.
        text: what it was opened by, for messages.
        plan: what its trials have in common.
        directions: of the objectives.

    Raises:
        UserError: the storage cannot be read, or holds the trials of another plan.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(study_name=NAME, storage=storage, directions=directions, load_if_exists=True)
        before = study.user_attrs.get(PLAN)
        if before is None:
            study.set_user_attr(PLAN, plan)
    except Exception as error:  # a file that is no database, or a damaged log
        raise UserError(f"--storage {text} cannot be read ({first_line(error)}): give another") from None
    if before is not None and (difference := _difference(before, plan)):
        raise UserError(f"--storage {text} holds another sweep ({difference}): give another --storage")
    return study


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Describe the first difference of two plans, by the part and the key that differ."""
    for part in now:
        one, other = before.get(part), now[part]
        if not isinstance(one, dict) or not isinstance(other, dict):
            if one != other:
                return f"{part} {_words(one)}, here {_words(other)}"
            continue
        for key in one | other:
            if one.get(key) != other.get(key):
                return f"{part} {key} {_words(one.get(key))}, here {_words(other.get(key))}"
    return ""


def _words(value: Any) -> str:
    return "none" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
