"""Export a model for serving: its graph alone, or in the folder that an inference server loads it from."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from torch import nn

from zoo.errors import UserError
from zoo.export.parity import LIMIT
from zoo.files import atomic, atomic_folder
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import DEFAULT, RUNTIMES
from zoo.serving.layouts import Layout, kserve_files, model_name, triton_files
from zoo.serving.preprocessing import embed_preprocessing

GRAPH = "model.onnx"
T = TypeVar("T")


@dataclass(frozen=True)
class Packaging:
    """Options of packing an exported graph; the fields are flags of ``zoo export``."""

    layout: Layout = "onnx"
    """onnx: one file; triton: a Triton model repository; kserve: the same with a manifest for KServe."""
    embed_preprocessing: bool = False
    """The graph takes uint8 images (batch, height, width, channels) of any size and crops and resizes them itself."""

    def default_output(self, run: Path, runtime: str = DEFAULT) -> Path:
        """Return the default path of a run's files for a runtime."""
        if self.layout != "onnx":
            return run / self.layout
        stem = "model-uint8" if self.embed_preprocessing else "model"
        return run / (f"{stem}.onnx" if runtime == DEFAULT else f"{stem}.{runtime}.onnx")


@dataclass(frozen=True)
class Packed:
    """The files' path, and how logits with preprocessing compare with PyTorch's, by (height, width)."""

    path: Path
    preprocessing_parity: dict[tuple[int, int], float]


def export_packed(
    write: Callable[[Path], T],
    model: nn.Module,
    metadata: Metadata,
    name: str,
    output: Path,
    how: Packaging,
    limit: float = LIMIT,
) -> tuple[T, Packed]:
    """Write a graph and pack it; existing files are replaced only once everything has passed.

    Args:
        write: exports the graph to a path and checks it.
        model: the model it is exported from, on the CPU in eval mode.
        metadata: of the graph.
        name: of the run, for the servers.
        output: the file; for a layout the repository's folder, in which the model's own folder is replaced and other
            models stay.
        how: the layout, and whether the graph preprocesses.
        limit: see `embed_preprocessing`.

    Returns:
        The result of ``write``, and the path of the files.

    Raises:
        UserError: the graph cannot be exported or fails a check, or ``output`` is of the wrong kind.
    """
    check_output(output, how)
    with TemporaryDirectory() as folder:
        graph = Path(folder) / GRAPH
        done = write(graph)
        parity = embed_preprocessing(graph, model, metadata, limit) if how.embed_preprocessing else {}
        if how.layout == "onnx":
            with atomic(output) as temporary:
                shutil.copyfile(graph, temporary)
        else:
            _fill(output, model_name(name), graph, metadata, how)
    return done, Packed(output, parity)


def check_runtime(runtime: str, how: Packaging) -> None:
    """Raise `UserError` if a packing is of no use to a runtime."""
    if runtime == DEFAULT:
        return
    if how.layout != "onnx":
        raise UserError(f"--layout {how.layout}: its server runs {DEFAULT}: leave --runtime {runtime} out")
    if how.embed_preprocessing and RUNTIMES.get(runtime).suffix != ".onnx":
        raise UserError(f"{runtime} does not read ONNX files, where preprocessing is embedded: leave one of them out")


def check_output(output: Path, how: Packaging) -> None:
    """Raise `UserError` if a file would replace a folder or the other way round."""
    if how.layout == "onnx" and output.is_dir():
        raise UserError(f"{output} is a folder: give a file name, such as -o {output / GRAPH}")
    if how.layout != "onnx" and output.exists() and not output.is_dir():
        raise UserError(
            f"{output} is a file: --layout {how.layout} writes a folder, such as -o {output.parent / 'models'}"
        )


def _fill(repository: Path, name: str, graph: Path, metadata: Metadata, how: Packaging) -> None:
    """Write a model into a repository, whole or not at all."""
    texts = {"triton": triton_files, "kserve": kserve_files}[how.layout]
    files = texts(name, metadata, preprocessing=how.embed_preprocessing)
    with atomic_folder(repository / name) as folder:
        (folder / "1").mkdir()
        shutil.copyfile(graph, folder / "1" / GRAPH)
        for path, content in files.items():
            if path.startswith(f"{name}/"):
                (folder / path.removeprefix(f"{name}/")).write_text(content, encoding="utf-8")
    for path, content in files.items():
        if not path.startswith(f"{name}/"):
            with atomic(repository / path) as temporary:
                temporary.write_text(content, encoding="utf-8")
