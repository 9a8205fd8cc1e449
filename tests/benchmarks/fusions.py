"""Time over before of graphs whose GELU is one operator (opset 20) and whose int8 activations are not rounded twice.

Usage: python tests/benchmarks/fusions.py [--archs vit_tiny_patch16_224,convnext_tiny,resnet18] [--compression 0.8]
       [--threads 2] [--rounds 40] [--json OUT.json]

For each network, dense and compressed, in fp32 and in int8: the graph at opset 18, with products alone among the types
to quantize, and the graph as `zoo export` writes it, timed in turns. Prints the ratios to the dense fp32 graph before.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import graph_times
from random_models import MEAN, STD, compressed

from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.export import precision
from zoo.export.onnx_file import write_onnx
from zoo.latency.timing import random_images

BEFORE, IMAGES = 18, 32
ARCHS = "vit_tiny_patch16_224,convnext_tiny,resnet18"


def graphs(arch: str, o: argparse.Namespace, folder: Path) -> graph_times.Files:
    """Write the graphs of one network before and now; return their files."""
    model, metadata = compressed(arch, Budget(compression=o.compression), o.size, o.convolution)
    shape, props, files = metadata.image_shape, metadata.to_props(), {}
    dense = with_normalization(create_backbone(arch, len(metadata.class_names), shape), MEAN, STD).eval()
    for name, network in {"dense": dense, f"{o.compression:.0%}": model}.items():
        for when, opset in {"before": BEFORE, "now": None}.items():
            full, small = (folder / f"{name}-{when}-{what}.onnx" for what in ("fp32", "int8"))
            write_onnx(network, full, shape, props, *([opset] if opset else []))
            products, floats = ["Conv", "Gemm", "MatMul"], []
            old = {"QUANTIZED": products, "FLOAT_RESULTS": floats} if opset else {}
            with patch.multiple(precision, **old) if old else patch.dict({}):
                images, seven_bits = random_images(IMAGES, shape), precision.saturates_here()
                precision.to_int8(full, small, images, seven_bits=seven_bits, threads=o.threads)
            files |= {f"{name} fp32 {when}": full, f"{name} int8 {when}": small}
    return files


def say(ratios: dict[str, float]) -> str:
    """Return now over before for each network and precision."""
    names = [name.removesuffix(" before") for name in ratios if name.endswith(" before")]
    return "now over before: " + graph_times.in_words({n: ratios[f"{n} now"] / ratios[f"{n} before"] for n in names})


def main() -> None:
    """Measure and print."""
    parser = graph_times.parser(__doc__)
    parser.set_defaults(archs=ARCHS)
    parser.add_argument("--compression", type=float, default=0.8, help="share of the parameters removed")
    o = parser.parse_args()
    graph_times.run(o, lambda arch, folder: graphs(arch, o, folder), say)


if __name__ == "__main__":
    main()
