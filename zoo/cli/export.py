"""Write a run's model as a factorized ONNX file, or ready for a server, and check it against PyTorch."""

from pathlib import Path

from zoo.cli._parser import Parser
from zoo.cli._run import add_run


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, export, and print what was written."""
    from zoo.export.serving import Packaging

    add_run(parser)
    parser.add_argument(
        "-o", "--output", type=Path | None, default=None, help="File or, for a layout, folder; default in RUN."
    )
    parser.add_fields(Packaging)
    options = parser.parse_args(argv)
    how = Packaging(options.layout, options.embed_preprocessing)

    from zoo.export.exporter import export_model
    from zoo.export.metadata import Metadata
    from zoo.export.parity import LIMIT
    from zoo.export.serving import check_output, export_packed
    from zoo.hub.runs import open_run

    run = open_run(options.run, options.hub)
    output: Path = options.output or how.default_output(run.folder)
    check_output(output, how)
    model, metadata = run.model(), Metadata.of(run.card)
    done, packed = export_packed(
        lambda path: export_model(model, metadata, path), model, metadata, run.name, output, how
    )
    parity = ", ".join(f"{value:.1e} (batch {batch})" for batch, value in done.parity.items())
    print(
        f"{done.bytes / 1e6:.2f} MB, {done.params:,} parameters, {done.factorized} factorized layers\n"
        f"largest difference of logits from PyTorch, relative: {parity}; limit {LIMIT:.0e}"
    )
    if packed.preprocessing_parity:
        sizes = ", ".join(f"{value:.1e} ({h} x {w})" for (h, w), value in packed.preprocessing_parity.items())
        print(f"with preprocessing inside, by size of the images: {sizes}")
    print(f"saved in {packed.path}")
