"""Write a run's model as an ONNX file, each layer in its fastest form, and check it against PyTorch."""

import json
from pathlib import Path

from zoo.cli._parser import Parser
from zoo.errors import UserError


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, export, and print what was written."""
    from zoo.export.settings import ExportSettings

    parser.add_argument("run", type=Path, help="Folder of a finished training.")
    parser.add_argument("-o", "--output", type=Path | None, default=None, help="File to write; default RUN/model.onnx.")
    parser.add_fields(ExportSettings)
    options = parser.parse_args(argv).as_dict()
    folder, output = options.pop("run"), options.pop("output")
    if output is not None and output.is_dir():
        raise UserError(f"{output} is a folder: give a file name, such as -o {output / 'model.onnx'}")
    settings = ExportSettings(**options)

    from rich.console import Console

    from zoo.export.export_report import lines, report
    from zoo.export.exporter import ONNX_FILE, export_model
    from zoo.export.metadata import Metadata
    from zoo.files import atomic
    from zoo.run import Run

    run = Run(folder)
    with Console(stderr=True).status("opening") as status:
        done = export_model(
            run.model(), Metadata.of(run.card), output or run.folder / ONNX_FILE, settings, status.update
        )
    with atomic(done.path.with_name(f"{done.path.name}.json")) as temporary:
        temporary.write_text(json.dumps(report(done), indent=2, ensure_ascii=False) + "\n")
    print("\n".join(lines(done)))
