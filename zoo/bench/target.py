"""A file to benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from zoo.export.choice import apply_forms, forms_in
from zoo.export.onnx_file import as_written
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import Source


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

    def source(self) -> Source:
        """Return what runtimes convert: the file, and the network with its layers in the file's forms."""
        build, metadata = self.model, self.metadata

        def network() -> nn.Module:
            assert build is not None
            return as_written(apply_forms(build(), forms_in(metadata)), metadata.image_shape)

        return Source(self.path, metadata.image_shape, network if build is not None else None, metadata.precision)
