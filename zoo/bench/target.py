"""A file to benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from zoo.runs.file_metadata import Metadata


@dataclass(frozen=True)
class Target:
    """One file to measure.

    Attributes:
        name: what to call it.
        path: the exported file.
        metadata: what the file says of itself.
        model: builds the PyTorch model it was exported from, in eval mode; None if that is not available.
        masking: signs of masked gradients that its card lists, see `zoo.evaluation.sanity`.
        data_dir: where its training found the data, if known.
    """

    name: str
    path: Path
    metadata: Metadata
    model: Callable[[], nn.Module] | None
    masking: tuple[str, ...] = ()
    data_dir: Path | None = None
