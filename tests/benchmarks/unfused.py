"""List what stays unfused, or leaves the blocked layout or the integers, in the optimised graph of every family.

Usage: python tests/benchmarks/unfused.py [--only resnet10t,vgg11] [--int8] [--opset 20] [--json unfused.json]

Writes the dense network of each family (random weights, 64 pixels) as `zoo export` would, and reads the graph that ONNX
Runtime makes of it on this processor. With ``--json`` each result is kept as soon as it is there, and the same command
goes on after an interruption. The last table counts every finding over all families.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests/methods"))

from optimised_graph import left_over, optimised  # noqa: E402
from test_families import FAMILIES, NATIVE_SIZE  # noqa: E402

from zoo.backbone import create_backbone, with_normalization  # noqa: E402
from zoo.errors import UserError  # noqa: E402
from zoo.export.onnx_file import OPSET, write_onnx  # noqa: E402
from zoo.export.precision import to_int8  # noqa: E402


def findings(arch: str, opset: int, int8: bool) -> dict[str, int]:
    """Return what is left over in the graph of one network, or the reason why there is no graph."""
    torch.manual_seed(0)
    size = NATIVE_SIZE.get(arch, 64)
    shape = (3, size, size)
    model = with_normalization(create_backbone(arch, 10, shape), (0.5,) * 3, (0.25,) * 3).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            write_onnx(model, file, shape, {}, opset)
            if int8:
                images = np.random.default_rng(0).random((8, *shape), dtype=np.float32)
                to_int8(file, file, images, seven_bits=True, threads=1)
        except UserError as error:
            return {f"not written: {error}": 1}
        return dict(left_over(optimised(file)))


def main() -> None:
    """Print the findings of each family, and all of them together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="families' members, separated by commas; default: one of each")
    parser.add_argument("--opset", type=int, default=OPSET)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--json", type=Path, help="where results are kept and found again")
    options = parser.parse_args()
    known: dict[str, dict[str, int]] = {}
    if options.json and options.json.is_file():
        known = json.loads(options.json.read_text())
    total: Counter[str] = Counter()
    for arch in options.only.split(",") if options.only else FAMILIES:
        if arch not in known:
            known[arch] = findings(arch, options.opset, options.int8)
            if options.json:
                options.json.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{arch}: " + (", ".join(f"{n} x {what}" for what, n in known[arch].items()) or "nothing"), flush=True)
        total.update(known[arch].keys())
    print("\nfamilies with each finding:")
    for what, count in total.most_common():
        print(f"{count:4}  {what}")


if __name__ == "__main__":
    main()
