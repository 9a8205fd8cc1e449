"""Write a run's model as a factorized ONNX file and check it against PyTorch."""

from pathlib import Path

from zoo.cli._parser import Parser
from zoo.cli._run import add_run
from zoo.errors import UserError


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, export, and print what was written."""
    add_run(parser)
    parser.add_argument("-o", "--output", type=Path | None, default=None, help="File to write; default RUN/model.onnx.")
    options = parser.parse_args(argv)
    output: Path | None = options.output
    if output is not None and output.is_dir():
        raise UserError(f"{output} is a folder: give a file name, such as -o {output / 'model.onnx'}")

    from zoo.export.exporter import ONNX_FILE, export_model
    from zoo.export.metadata import Metadata
    from zoo.export.parity import LIMIT
    from zoo.hub.runs import open_run

    run = open_run(options.run, options.hub)
    done = export_model(run.model(), Metadata.of(run.card), output or run.folder / ONNX_FILE)
    parity = ", ".join(f"{value:.1e} (batch {batch})" for batch, value in done.parity.items())
    print(
        f"{done.bytes / 1e6:.2f} MB, {done.params:,} parameters, {done.factorized} factorized layers\n"
        f"largest difference of logits from PyTorch, relative: {parity}; limit {LIMIT:.0e}\n"
        f"saved in {done.path}"
    )
