"""Serve a run, a published model or an exported file over HTTP: POST an image, get the classes as JSON.

It answers POST / with an image as the body (curl --data-binary @photo.jpg) or as a file of a form (curl -F
image=@photo.jpg), GET /health, and GET /metrics for Prometheus. An exported file is served with ONNX Runtime, NumPy and
Pillow alone; a run without one is exported first, for any machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub
from zoo.errors import UserError

TASK = "deploy"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, and serve until interrupted."""
    from zoo.latency.session import default_threads

    add = parser.add_argument
    add("model", type=str, metavar="RUN|FILE.onnx", help="A run, a published model's name, or an exported file.")
    add("--host", type=str, default="127.0.0.1", help="Address to listen at; 0.0.0.0: reachable from other machines.")
    add("--port", type=int, default=8000, help="Port to listen at; 0: a free one.")
    add("--threads", type=int, default=default_threads(), help="Threads of one operator.")
    add_hub(parser)
    options = parser.parse_args(argv)
    if options.threads < 1:
        raise UserError(f"--threads must be at least 1, not {options.threads}")

    from zoo.screen import is_quiet
    from zoo.serving.serve import listen

    with served_file(options.model, options.hub) as path:
        try:
            listen(str(path), options.host, options.port, options.threads, name=options.model, quiet=is_quiet())
        except SystemExit as error:
            raise UserError(str(error)) from None


@contextmanager
def served_file(target: str, hub: str | None) -> Iterator[Path]:
    """Yield the file to serve: the one given, that of the run, or one that is written for the time of serving."""
    from zoo.files import user_path

    path = user_path(target)
    if path.is_file() or path.suffix == ".onnx":
        if not path.is_file():
            raise UserError(f"no ONNX file at {path}: write one with `zoo export RUN`")
        yield path
        return

    from zoo.export.exporter import ONNX_FILE, export_model
    from zoo.hub.runs import look_at
    from zoo.latency.session import OnnxModel
    from zoo.runs.file_metadata import Metadata
    from zoo.screen import note, stages

    run = look_at(target, hub)
    file = run.folder / ONNX_FILE
    if file.is_file():
        if OnnxModel(file, "cpu").metadata.weights_sha256 != run.card.weights.sha256:
            raise UserError(f"{file} has other weights than the run has now: `zoo export {target}` again")
        yield file
        return
    with TemporaryDirectory() as folder:
        note(f"{target} has no {ONNX_FILE}: exporting it for any machine (`zoo export` writes one for this machine)")
        file = Path(folder) / ONNX_FILE
        with stages("exporting") as say:
            export_model(run.model(), Metadata.of(run.card), file, say=say)
        yield file
