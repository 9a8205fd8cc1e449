"""Positions of values on an axis, and its labels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from zoo.report.chart import Axis


@dataclass(frozen=True)
class Scale:
    """The map from values to 0..1 along an axis.

    Attributes:
        axis: that it belongs to.
        low: the value at 0.
        high: the value at 1.
    """

    axis: Axis
    low: float
    high: float

    @classmethod
    def of(cls, axis: Axis, values: Iterable[float]) -> "Scale":
        """Return the scale for some values, or for the axis's limits if it has any, with a small margin.

        Shares in 0..1 get no margin beyond.
        """
        known = [v for v in values if math.isfinite(v) and (v > 0 or not axis.log)] or [1.0]
        low, high = min(known), max(known)
        if axis.log:
            room = max((high / low) ** 0.08, 1.1)
            low, high = low / room, high * room
        else:
            room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
            low, high = low - room, high + room
        if axis.percent and 0 <= min(known) <= max(known) <= 1:
            low, high = max(low, 0.0), min(high, 1.0)  # no share lies beyond
        first, last = axis.limits
        return cls(axis, low if first is None else first, high if last is None else last)

    def place(self, value: float) -> float | None:
        """Return the position of a value, 0 to 1 along the axis; None if a logarithmic axis cannot show it."""
        if not math.isfinite(value) or (self.axis.log and value <= 0):
            return None
        if self.axis.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about ``count`` round values within the axis."""
        if self.axis.log:
            return self._log_ticks(count)
        return self._linear_ticks(count, self.axis.whole) or self._linear_ticks(count)

    def _linear_ticks(self, count: int, whole: bool = False) -> list[float]:
        rough = (self.high - self.low) / count
        rough = max(rough, 1.0) if whole else rough
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * min(
            (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10),
            key=lambda factor: abs(math.log(factor * power / rough)),
        )
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]

    def _log_ticks(self, count: int) -> list[float]:
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            ticks = [f * 10.0**e for e in exponents for f in factors]
            ticks = [t for t in ticks if self.low <= t <= self.high]
            if len(ticks) >= 3:
                return ticks[:: max(1, math.ceil(len(ticks) / (count + 1)))]
        return self._linear_ticks(min(count, 3))

    def text(self, value: float) -> str:
        """Format a value as a label of the axis."""
        return f"{100 * value:.3g}%" if self.axis.percent else short(value)


def short(value: float) -> str:
    """Write a number in a few characters: 2.2M, 12k, 0.006, 1e-05."""
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= size < 1e12:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"
