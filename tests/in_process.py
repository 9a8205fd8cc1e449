"""An engine whose workers are this process: what the parts of a command may expect of any engine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from zoo.engines import Engine, LostWorker


@dataclass(frozen=True)
class InProcess(Engine):
    """Does items one after the other, the last one first, and loses its worker after some.

    Attributes:
        survives: items that are done before the worker is lost for good; None: all.
        done: places of the items that were done.
    """

    survives: int | None = None
    done: list[int] = field(default_factory=list)

    def map(self, function, shared, items, device="cpu") -> Iterator[tuple[int, Any]]:
        """See `Engine.map`."""
        for place in reversed(range(len(items))):
            if len(self.done) == self.survives:
                raise LostWorker("the worker is gone")
            self.done.append(place)
            yield place, function(shared, items[place])

    def launch(self, function, argument, device="cpu") -> None:
        """See `Engine.launch`: a single process."""
        if self.survives is not None and len(self.done) >= self.survives:
            raise LostWorker("the worker is gone")
        self.done.append(0)
        function(argument, {"devices": 1, "num_nodes": 1})
