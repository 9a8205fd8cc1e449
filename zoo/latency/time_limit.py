"""A limit on the time that measurements may take: on a busy machine they take many times as long."""

import math
import time


class TimeIsUp(Exception):
    """A measurement was not done, or not finished, within the limit."""


class TimeLimit:
    """A number of seconds, which run from the first question on.

    Args:
        seconds: infinity for no limit; 0 leaves no time for any measurement.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._end: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        if self._end is None:
            self._end = time.monotonic() + self.seconds
        return time.monotonic() >= self._end

    def check(self) -> None:
        """Raise `TimeIsUp` if it is."""
        if self.is_over:
            raise TimeIsUp
