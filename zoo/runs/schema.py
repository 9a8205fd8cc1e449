"""What is wrong with a JSON file that departs from its schema, in words."""

import json

from pydantic import ValidationError

from zoo.errors import UserError


def first_mistake(error: ValidationError) -> str:
    """Describe the first place where a file departs from its schema."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return f"{where}: {first['msg']}"


def refuse_newer(text: str | bytes, known: int, what: str) -> None:
    """Refuse a JSON text whose ``schema_version`` is newer than this zoo knows; other faults are not checked.

    Raises:
        UserError: it is.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > known:
        raise UserError(f"{what} has schema {version}, this zoo knows {known}: pip install --upgrade robust-zoo")
