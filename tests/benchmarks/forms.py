"""Forms that `zoo export --target cpu` chooses against each alternative forced on every layer, in one interleaved run.

Usage: python tests/benchmarks/forms.py [--archs resnet18,vgg16_bn] [--compression 0.8] [--threads 2] [--json OUT.json]

Prints, for each model and batch size, the time of each graph over that of the graph chosen.
"""

import argparse
from pathlib import Path

import graph_times
from random_models import compressed

from zoo.budget import Budget
from zoo.export.choice import apply_forms, choose_forms, dense_forms, padded_forms
from zoo.export.exporter import export_model
from zoo.export.onnx_file import write_onnx
from zoo.export.settings import ExportSettings
from zoo.export.target import open_target


def graphs(arch: str, o: argparse.Namespace, folder: Path) -> graph_times.Files:
    """Write the chosen graph, which comes first, and the alternatives; return their files."""
    budget = Budget(compression=o.compression, macs_reduction=o.macs_reduction)
    model, metadata = compressed(arch, budget, o.size, o.convolution)
    done = export_model(model, metadata, folder / "chosen.onnx", ExportSettings(threads=o.threads))
    forced = {
        "as trained": {name: choice.trained for name, choice in done.choices.items()},
        "padded": padded_forms(done.choices, open_target("cpu", o.threads).block),
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


def say(ratios: dict[str, float]) -> str:
    """Return the ratios in words, with what the choice costs."""
    return f"{graph_times.in_words(ratios)}; slower than the best by {1 / min(ratios.values()) - 1:.1%}"


def main() -> None:
    """Measure and print."""
    parser = graph_times.parser(__doc__)
    parser.add_argument("--compression", type=float, default=0.8, help="share of the parameters gone")
    o = parser.parse_args()
    graph_times.run(o, lambda arch, folder: graphs(arch, o, folder), say)


if __name__ == "__main__":
    main()
