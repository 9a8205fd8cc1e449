"""Write a run's model as ONNX, each layer in its fastest form, as a file or ready for a server; check it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli._parser import Parser
from zoo.cli._run import add_run
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.export.exporter import Exported
    from zoo.export.settings import ExportSettings
    from zoo.nested.cut import Cut
    from zoo.runs.run import Run

TASK = "deploy"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, export, and print what was written."""
    from zoo.export.settings import ExportSettings
    from zoo.serving.bundle import Packaging

    _add_arguments(parser)
    options = parser.parse_args(argv).as_dict()
    target, hub, output = (options.pop(name) for name in ("run", "hub", "output"))
    compression, latency = options.pop("compression"), options.pop("latency")
    how = Packaging(**{field.name: options.pop(field.name) for field in fields(Packaging)})
    settings = ExportSettings(**options)

    from zoo.data import check_data_dir
    from zoo.export.export_report import report
    from zoo.export.exporter import export_model
    from zoo.export.parity import LIMIT
    from zoo.files import atomic
    from zoo.hub.runs import look_at, open_run
    from zoo.runs.file_metadata import Metadata
    from zoo.screen import stages
    from zoo.serving.bundle import check_output, check_runtime, export_packed

    check_runtime(settings.runtime, how)
    check_data_dir(look_at(target, hub).card.data, settings.data_dir)
    if output is not None:
        check_output(output, how)
    run = open_run(target, hub)
    settings = replace(settings, data_dir=settings.data_dir or run.data_dir)
    limit = LIMIT if settings.precision == "fp32" else math.inf  # otherwise the loss of accuracy is limited
    with stages("opening") as say:
        smaller = _smaller(run, compression, latency, settings, say)
        if smaller is not None:
            model, metadata, name = smaller.model, Metadata.of(smaller.card), f"{run.name}-{smaller.compression:.3g}"
            default = how.default_output(run.folder, settings.runtime)
            output = output or default.with_name(f"{default.stem}-{smaller.compression:.3g}{default.suffix}")
        else:
            model, metadata, name = run.model(), Metadata.of(run.card), run.name
            output = output or how.default_output(run.folder, settings.runtime)
        beside = Path(os.path.abspath(output))  # "." and ".." have no name to write a file beside
        check_output(output, how)
        done, packed = export_packed(
            lambda path: export_model(model, metadata, path, settings, say),
            model,
            metadata,
            name,
            output,
            how,
            limit,
        )
    done = replace(done, path=packed.path)
    for suffix, content in done.artefact.items():
        with atomic(done.beside(suffix)) as temporary:
            temporary.write_bytes(content)
    with atomic(beside.with_name(f"{beside.name}.json")) as temporary:
        temporary.write_text(json.dumps(report(done), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if smaller is not None:
        print(_described(smaller))
    _show(done, packed.preprocessing_parity)


def _add_arguments(parser: Parser) -> None:
    from zoo.export.settings import ExportSettings
    from zoo.serving.bundle import Packaging

    add_run(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path | None, default=None, help="File or, for a layout, folder; default in RUN.")
    add(
        "--compression",
        type=float | None,
        default=None,
        help="Of a nested run: the network inside it of which this share of the parameters is removed.",
    )
    add(
        "--latency",
        type=str | None,
        default=None,
        help="Of a nested run: the largest network inside it that takes at most this time an image, such as 1.5ms.",
    )
    parser.add_fields(Packaging)
    parser.add_fields(ExportSettings)


def _show(done: Exported, preprocessing: dict[tuple[int, int], float]) -> None:
    """Print what was exported; ``preprocessing`` has the differences of logits by the images' size, if it is inside."""
    from zoo.export.export_report import lines
    from zoo.screen import wrapped

    *found, saved = lines(done)
    print("\n".join(line for text in found for line in wrapped(text)))
    if preprocessing:
        sizes = ", ".join(f"{value:.1e} ({h} x {w})" for (h, w), value in preprocessing.items())
        print(f"with preprocessing inside, by size of the images: {sizes}")
    print(saved)


def _smaller(
    run: Run, compression: float | None, latency: str | None, settings: ExportSettings, say: Callable[[str], None]
) -> Cut | None:
    """Cut the requested network out of a nested run; None: the run's own was requested.

    Raises:
        UserError: both a compression and a latency are given, or there is no such network.
    """
    if compression is None and latency is None:
        return None
    from zoo.nested.cut import cut
    from zoo.nested.latency_budget import cut_for_latency, parse_latency

    if compression is not None and latency is not None:
        raise UserError("--compression and --latency each choose a network: leave one of them out")
    if latency is None:
        assert compression is not None
        return cut(run, compression, settings.data_dir, settings.download)
    found, time = cut_for_latency(run, parse_latency(latency), settings, say)
    print(f"{found.compression:.3g} of the parameters removed: one image takes {time:.2f} ms here, at most {latency}")
    return found


def _described(smaller: Cut) -> str:
    card = smaller.card
    statistics = f"estimated on {smaller.images:,} training images" if smaller.images else "kept from the training"
    return (
        f"cut to {card.params:,} parameters ({card.compression:.1%} fewer than {card.dense_params:,}) and "
        f"{card.macs:,} multiply-accumulates; BatchNorm statistics {statistics}"
    )
