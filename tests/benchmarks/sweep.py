"""No model is slower than dense at any compression: time over that of the dense model, from 20 to 95 %.

Usage: python tests/benchmarks/sweep.py [--archs resnet18,vgg16_bn] [--compressions 0.2,0.5,0.8] [--json OUT.json]
"""

import argparse
import json
import tempfile
from pathlib import Path

from forms import ARCHS, BATCHES
from random_models import compressed

from zoo.errors import UserError
from zoo.export.baselines import export_dense
from zoo.export.exporter import export_model
from zoo.export.latency import measure
from zoo.export.settings import ExportSettings

COMPRESSIONS = "0.2,0.35,0.5,0.65,0.8,0.9,0.95"


def main() -> None:
    """Export each model at each compression, time all of an architecture in turns, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", default=ARCHS)
    parser.add_argument("--compressions", default=COMPRESSIONS)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for arch in options.archs.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder, files = Path(name), {}
            for compression in map(float, options.compressions.split(",")):
                try:
                    model, metadata = compressed(arch, compression, options.size)
                except UserError as error:
                    print(f"{arch}, {compression:.0%}: {error}")
                    continue
                if not files:
                    files["dense"] = export_dense(metadata, folder).path
                files[f"{compression:.0%}"] = folder / f"{compression}.onnx"
                export_model(model, metadata, files[f"{compression:.0%}"], ExportSettings(threads=options.threads))
            timings = measure(
                list(files.values()), device="cpu", threads=options.threads, batches=BATCHES,
                rounds=options.rounds, seconds=options.seconds,
            )  # fmt: skip
        results[arch] = {
            str(batch): {
                at: timing.latency[batch].ratio_to(timings[0].latency[batch])
                for at, timing in zip(files, timings, strict=True)
            }
            for batch in BATCHES
        }
        for batch, ratios in results[arch].items():
            cells = ", ".join(f"{at} {ratio:.2f}" for at, ratio in ratios.items())
            print(f"{arch}, batch {batch}, time over dense: {cells}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
