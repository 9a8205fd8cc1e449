"""Forms that `zoo export --target cpu` chooses against each alternative forced on every layer, in one interleaved run.

Usage: python tests/benchmarks/forms.py [--archs resnet18,vgg16_bn] [--compression 0.8] [--threads 2] [--json OUT.json]

Prints, for each model and batch size, the time of each graph over that of the graph chosen.
"""

import argparse
import json
import tempfile
from pathlib import Path

from random_models import compressed

from zoo.export.choice import Choice, apply_forms, choose_forms, dense_forms
from zoo.export.exporter import export_model
from zoo.export.forms import Form
from zoo.export.latency import measure
from zoo.export.onnx_file import write_onnx
from zoo.export.settings import ExportSettings
from zoo.export.target import open_target

ARCHS = "resnet18,vgg16_bn,mobilenetv2_100,convnext_atto,vit_tiny_patch16_224"
BATCHES = (1, 32)


def padded(choice: Choice, block: int) -> Form:
    """Return the trained form at a rank padded up, or as it is where that is no candidate."""
    form = Form(choice.trained.split, -(-choice.trained.rank // block) * block)
    return form if str(form) in choice.costs else choice.trained


def graphs(arch: str, compression: float, size: int, threads: int, folder: Path) -> dict[str, Path]:
    """Write the chosen graph, which comes first, and the alternatives; return their files."""
    model, metadata = compressed(arch, compression, size)
    done = export_model(model, metadata, folder / "chosen.onnx", ExportSettings(threads=threads))
    block = open_target("cpu", threads).block
    forced = {
        "as trained": {name: choice.trained for name, choice in done.choices.items()},
        "padded": {name: padded(choice, block) for name, choice in done.choices.items()},
        "dense": dense_forms(done.choices),
        "cost model": {n: c.form for n, c in choose_forms(model, metadata.image_shape, open_target("generic")).items()},
    }
    files = {"chosen": folder / "chosen.onnx"}
    written = [{name: choice.form for name, choice in done.choices.items()}]
    for name, forms in forced.items():
        if forms in written:
            print(f"{arch}: {name} is the same graph as another")
            continue
        written.append(forms)
        files[name] = folder / f"{len(files)}.onnx"
        write_onnx(apply_forms(model, forms), files[name], metadata.image_shape, metadata.to_props())
    return files


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", default=ARCHS)
    parser.add_argument("--compression", type=float, default=0.8)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for arch in options.archs.split(","):
        with tempfile.TemporaryDirectory() as folder:
            files = graphs(arch, options.compression, options.size, options.threads, Path(folder))
            timings = measure(
                list(files.values()), device="cpu", threads=options.threads, batches=BATCHES,
                rounds=options.rounds, seconds=options.seconds,
            )  # fmt: skip
        results[arch] = {
            str(batch): {
                name: timing.latency[batch].ratio_to(timings[0].latency[batch])
                for name, timing in zip(files, timings, strict=True)
            }
            for batch in BATCHES
        }
        for batch, ratios in results[arch].items():
            cells = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
            print(
                f"{arch}, batch {batch}: {cells}; slower than the best by {1 / min(ratios.values()) - 1:.1%}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
