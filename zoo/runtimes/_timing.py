"""Time one file in one runtime in a separate process, which `zoo.latency.measure` starts.

Answers the requests of `zoo.latency.timing`; the argument is JSON: runtime, file, image_shape.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.latency.timing import OPENINGS, placement, random_images, serve, time_runs
from zoo.runtimes import RUNTIMES, Runner


class RuntimeFile:
    """A file that is open in a runtime."""

    def __init__(self, runtime: str, file: Path, image_shape: tuple[int, int, int], threads: int) -> None:
        opener = self._opener = RUNTIMES.get(runtime)()
        if places := placement(threads):  # the same processors for every file and runtime
            os.sched_setaffinity(0, places)
        self._images = random_images(1, image_shape)
        self._open = lambda: opener.open(file, opener.threads(threads))
        self._session = self._open()
        self._session.logits(self._images)
        self.provider = f"{runtime} {opener.version()}"
        self._shape = image_shape

    def runner(self, batch: int) -> Callable[[], Any]:
        """Return a function that classifies one batch of random images."""
        return Runner(self._opener, self._session, random_images(batch, self._shape))

    def start_times(self) -> list[float]:
        """Open the file a few more times and run one image: some runtimes compile for the first batch."""
        return [time for _ in range(OPENINGS) for time in time_runs(lambda: self._open().logits(self._images), 0.0)]


def main(argv: list[str]) -> None:
    """Serve the file, device and number of threads on the command line."""
    said, _, threads = argv
    spec = json.loads(said)
    serve(lambda: RuntimeFile(spec["runtime"], Path(spec["file"]), tuple(spec["image_shape"]), int(threads)))


if __name__ == "__main__":
    main(sys.argv[1:])
