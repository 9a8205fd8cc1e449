"""The data set that a command measures a run on: the card's, or the command line's where the card names none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.runs.card import Card
    from zoo.runs.run import Run


def card_with_data(run: Run, data: str | None, *, data_dir: Path | None, download: bool) -> Card:
    """Return a run's card with a data set: its own, or the one that was given for a run compressed without data.

    Classes that the card only numbers get the names of the data set.

    Raises:
        UserError: there is none, or another than the card's; or it does not fit the model.
    """
    from zoo.data import are_placeholders, check_data_dir, open_known

    card = run.card
    if card.data:
        if data not in (None, card.data):
            raise UserError(f"--data {data}: {run.folder} is of {card.data}, and so are its figures: leave --data out")
        check_data_dir(card.data, data_dir)
        return card
    if data is None:
        raise UserError(
            f"{run.folder} was compressed without data, so it names no data set: give the one that it is for, "
            "--data NAME and, where that has files, --data-dir DIR"
        )
    check_data_dir(data, data_dir)
    found = open_known(
        data,
        data_dir=data_dir or run.data_dir,
        download=download,
        image_shape=card.image_shape,
        class_names=card.class_names,
    )
    names = found.class_names if are_placeholders(card.class_names) else card.class_names
    return card.model_copy(update={"data": data, "class_names": tuple(names)})
