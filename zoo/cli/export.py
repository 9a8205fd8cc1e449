"""Write a run's model as ONNX, each layer in its fastest form, as a file or ready for a server; check it."""

import json
import math
import os
from dataclasses import fields, replace
from pathlib import Path

from zoo.cli._parser import Parser
from zoo.cli._run import add_run

TASK = "deploy"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, export, and print what was written."""
    from zoo.export.settings import ExportSettings
    from zoo.serving.bundle import Packaging

    add_run(parser)
    parser.add_argument(
        "-o", "--output", type=Path | None, default=None, help="File or, for a layout, folder; default in RUN."
    )
    parser.add_fields(Packaging)
    parser.add_fields(ExportSettings)
    options = parser.parse_args(argv).as_dict()
    target, hub, output = (options.pop(name) for name in ("run", "hub", "output"))
    how = Packaging(**{field.name: options.pop(field.name) for field in fields(Packaging)})
    settings = ExportSettings(**options)

    from zoo.data import check_data_dir
    from zoo.export.export_report import lines, report
    from zoo.export.exporter import export_model
    from zoo.export.parity import LIMIT
    from zoo.files import atomic
    from zoo.hub.runs import look_at, open_run
    from zoo.runs.file_metadata import Metadata
    from zoo.screen import stages, wrapped
    from zoo.serving.bundle import check_output, export_packed

    check_data_dir(look_at(target, hub).card.data, settings.data_dir)
    if output is not None:
        check_output(output, how)
    run = open_run(target, hub)
    output = output or how.default_output(run.folder)
    beside = Path(os.path.abspath(output))  # "." and ".." have no name to write a file beside
    check_output(output, how)
    settings = replace(settings, data_dir=settings.data_dir or run.data_dir)
    model, metadata = run.model(), Metadata.of(run.card)
    limit = LIMIT if settings.precision == "fp32" else math.inf  # otherwise the loss of accuracy is limited
    with stages("opening") as say:
        done, packed = export_packed(
            lambda path: export_model(model, metadata, path, settings, say),
            model,
            metadata,
            run.name,
            output,
            how,
            limit,
        )
    done = replace(done, path=packed.path)
    with atomic(beside.with_name(f"{beside.name}.json")) as temporary:
        temporary.write_text(json.dumps(report(done), indent=2, ensure_ascii=False) + "\n")
    *found, saved = lines(done)
    print("\n".join(line for text in found for line in wrapped(text)))
    if packed.preprocessing_parity:
        sizes = ", ".join(f"{value:.1e} ({h} x {w})" for (h, w), value in packed.preprocessing_parity.items())
        print(f"with preprocessing inside, by size of the images: {sizes}")
    print(saved)
