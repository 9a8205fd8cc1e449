"""Choose among the models of hubs: by name, by figures, in an order."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from zoo.errors import UserError
from zoo.hub.index import Entry, Robust, Summary
from zoo.hub.names import matching
from zoo.runs.records import Threat

Key = Literal["name", "params", "macs", "clean", "robust", "latency", "bytes"]
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@dataclass(frozen=True)
class Selection:
    """A choice of models and their order.

    Attributes:
        pattern: of their names, see `zoo.hub.names.matching`.
        data: the data set they were trained on; None: any.
        min_robust: least accuracy under ``threat``, or each model's own threat. A model that was not measured there, or
            has masked gradients, meets no ``min_robust`` and comes last by ``robust``.
        max_params: most parameters.
        threat: the radius to compare at; None: each model's own.
        sort: best first: few parameters, high accuracy, low latency.
    """

    pattern: str = "*"
    data: str | None = None
    min_robust: float | None = None
    max_params: int | None = None
    threat: Threat | None = None
    sort: Key = "name"

    def __post_init__(self) -> None:
        for name, value in (("min_robust", self.min_robust), ("max_params", self.max_params)):
            if not isinstance(value, int | float | None):
                raise UserError(f"{name} {value!r} is not a number")
        if self.min_robust is not None and not 0 <= self.min_robust <= 1:
            raise UserError(f"min-robust {self.min_robust} is not a share in 0..1, such as 0.4")
        if self.sort not in get_args(Key):
            raise UserError(f"cannot sort by {self.sort!r}: choose from {', '.join(get_args(Key))}")

    def of(self, models: dict[str, Entry]) -> dict[str, Entry]:
        """Return the chosen models in order."""
        chosen = [name for name in matching(self.pattern, models) if self._fits(models[name].summary)]
        if self.sort != "name":
            chosen.sort(key=lambda name: self._keys(models[name])[self.sort]())
        return {name: models[name] for name in chosen}

    def _fits(self, model: Summary) -> bool:
        robust = self._believed(model)
        return (
            (self.data is None or model.data == self.data)
            and (self.max_params is None or model.params <= self.max_params)
            and (self.min_robust is None or (robust is not None and robust.accuracy >= self.min_robust))
        )

    def _believed(self, model: Summary) -> Robust | None:
        """Return the credible accuracy under attack: none with masked gradients or if nothing was learned."""
        return None if model.gradient_masking or model.uninformative else model.robust_at(self.threat)

    def _keys(self, entry: Entry) -> dict[str, Callable[[], float]]:
        model = entry.summary
        robust = self._believed(model)
        return {
            "params": lambda: model.params,
            "macs": lambda: model.macs,
            "bytes": lambda: entry.bytes,
            "clean": lambda: -(model.clean or 0.0),
            "robust": lambda: -robust.accuracy if robust else 1.0,
            "latency": lambda: math.inf if model.latency_ms is None else model.latency_ms,
        }


def parse_count(text: str) -> int:
    """Read a number of parameters, such as ``2M``, ``500k`` or ``1e6``.

    Raises:
        UserError: the text is not a number of parameters.
    """
    unit = text[-1:].lower() if text[-1:].isalpha() else ""
    try:
        return int(float(text[: len(text) - len(unit)]) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise UserError(f"{text!r} is not a number of parameters: write 2M, 500k or 2000000") from None
