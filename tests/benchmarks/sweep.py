"""No model is slower than dense at any compression: time over that of the dense model, from 20 to 95 %.

Usage: python tests/benchmarks/sweep.py [--archs resnet18,vgg16_bn] [--compressions 0.2,0.5,0.8] [--json OUT.json]

With ``--keep DIR`` the graphs stay, and `zoo bench DIR/*/0.8.onnx --n 0` times all architectures in one run.
"""

import argparse
from pathlib import Path

import graph_times
from random_models import compressed

from zoo.bench.baselines import export_dense
from zoo.budget import Budget
from zoo.errors import UserError
from zoo.export.exporter import export_model
from zoo.export.settings import ExportSettings

COMPRESSIONS = "0.2,0.35,0.5,0.65,0.8,0.9,0.95"


def graphs(arch: str, o: argparse.Namespace, folder: Path) -> graph_times.Files:
    """Write the dense graph, which comes first, and the one of each compression that is possible."""
    files: graph_times.Files = {}
    for compression in (float(word) for word in o.compressions.split(",")):
        try:
            budget = Budget(compression=compression, macs_reduction=o.macs_reduction)
            model, metadata = compressed(arch, budget, o.size, o.convolution)
        except UserError as error:
            print(f"{arch}, {compression:.0%}: {error}")
            continue
        if not files:
            files["dense"] = export_dense(metadata, folder).path
        file = files[f"{compression:.0%}"] = folder / f"{compression}.onnx"
        export_model(model, metadata, file, ExportSettings(threads=o.threads))
    return files


def main() -> None:
    """Export each model at each compression, time all of an architecture in turns, and print the ratios."""
    parser = graph_times.parser(__doc__)
    parser.add_argument("--compressions", default=COMPRESSIONS, help="shares of the parameters gone")
    o = parser.parse_args()
    graph_times.run(
        o,
        lambda arch, folder: graphs(arch, o, folder),
        lambda ratios: f"time over dense: {graph_times.in_words(ratios)}",
    )


if __name__ == "__main__":
    main()
