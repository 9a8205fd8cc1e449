"""Time factorized against dense ONNX graphs at 80 % with weights of one step: `zoo bench` on them.

Usage: python tests/benchmarks/onnx_latency.py --data-dir DIR [--archs vgg16_bn,resnet18] [--threads 2]
"""

import argparse
import tempfile
from pathlib import Path

from zoo.cli import run


def main() -> None:
    """Train for one step, export and bench each architecture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", default="vgg16_bn,resnet18")
    parser.add_argument("--data-dir", required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--threads", default="2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for arch in options.archs.split(","):
            runs.append(str(Path(folder) / arch))
            run(["train", "--arch", arch, "--data", "cifar10", "--data-dir", options.data_dir, "--epochs", "1",
                 "--trainer.limit_train_batches", "1", "--n", "10", "--out", runs[-1]])  # fmt: skip
        run(["bench", *runs, "--threads", options.threads, "--n", "0"])  # accuracies of one step say nothing


if __name__ == "__main__":
    main()
