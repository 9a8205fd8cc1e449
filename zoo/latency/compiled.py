"""Time a dense backbone under `torch.compile` in a separate process: the baseline that stays with PyTorch.

Answers the requests of `zoo.latency.timing`; the argument is JSON: arch, classes, image_shape, stem, mean, std.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo import config as dynamo

from zoo.backbone import create_backbone, with_normalization
from zoo.errors import UserError, first_line
from zoo.latency.timing import random_images, serve


class Compiled:
    """A dense backbone with random weights, normalisation inside, compiled for each batch size."""

    def __init__(self, spec: dict[str, Any], device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        dynamo.recompile_limit = 1024  # beyond it, further batch sizes would silently run uncompiled
        self.device, self.image_shape = torch.device(device), tuple(spec["image_shape"])
        self.provider = f"torch.compile, {device}"
        backbone = create_backbone(spec["arch"], spec["classes"], spec["image_shape"], stem=spec["stem"])
        self.model = with_normalization(backbone, spec["mean"], spec["std"]).eval().to(self.device)
        self._start: list[float] = []
        try:
            self.runner(1)()
        except Exception as error:  # no C++ compiler, or operators that inductor does not support
            raise UserError(f"torch.compile fails on {spec['arch']}: {first_line(error)}") from None

    def runner(self, batch: int) -> Callable[[], Any]:
        """Compile for a batch size and return a function that runs it."""
        images = torch.from_numpy(random_images(batch, self.image_shape)).to(self.device)
        compiled = torch.compile(self.model, dynamic=False)

        @torch.inference_mode()
        def run() -> None:
            compiled(images)
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        begin = time.perf_counter()
        run()
        self._start.append(time.perf_counter() - begin)
        return run

    def start_times(self) -> list[float]:
        """Return the time of the first batch, which includes compilation."""
        return self._start[:1]


def main(argv: list[str]) -> None:
    """Serve the model, device and number of threads on the command line."""
    spec, device, threads = argv
    serve(lambda: Compiled(json.loads(spec), device, int(threads)))


if __name__ == "__main__":
    main(sys.argv[1:])
