"""What the benchmarks of exported graphs share: their options, and timing each architecture's graphs in turns."""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from zoo.latency.measure import measure
from zoo.lowrank.factorize import Convolution

ARCHS = "resnet18,vgg16_bn,mobilenetv2_100,convnext_tiny,vit_tiny_patch16_224"
BATCHES = (1, 32)

Files = dict[str, Path]
"""Graphs of one architecture by name; times are told over that of the first."""


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that they all have."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--archs", default=ARCHS, help="timm's names, separated by commas")
    found.add_argument("--size", type=int, default=32, help="height and width of the images")
    found.add_argument("--threads", type=int, default=2, help="of one operator")
    found.add_argument("--convolution", default="matrix", choices=get_args(Convolution), help="form of k x k layers")
    found.add_argument("--macs-reduction", type=float, help="share of the multiply-accumulates gone (default: any)")
    found.add_argument("--rounds", type=int, default=40, help="turns of each graph")
    found.add_argument("--seconds", type=float, default=0.05, help="length of a turn")
    found.add_argument("--keep", type=Path, help="folder to keep the graphs in, in one of their architecture")
    found.add_argument("--json", type=Path, help="where the ratios are written")
    return found


def run(
    options: argparse.Namespace, write: Callable[[str, Path], Files], say: Callable[[dict[str, float]], str]
) -> None:
    """Write and time the graphs of each architecture, and print and keep their ratios.

    Args:
        options: of `parser`.
        write: writes an architecture's graphs into a folder.
        say: returns in words what the ratios of one batch size mean.
    """
    results: dict[str, dict[str, dict[str, float]]] = {}
    for arch in options.archs.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.keep / arch if options.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            results[arch] = _ratios(write(arch, folder), options)
        for batch, ratios in results[arch].items():
            print(f"{arch}, batch {batch}: {say(ratios)}", flush=True)
        if options.json:  # after each architecture: a run takes hours
            options.json.write_text(json.dumps(results, indent=2) + "\n")


def in_words(ratios: dict[str, float]) -> str:
    """Return ratios as a line."""
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())


def _ratios(files: Files, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return each graph's time over that of the first, by batch size and name."""
    if not files:
        return {}
    timings = measure(
        list(files.values()),
        device="cpu",
        threads=options.threads,
        batches=BATCHES,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    return {
        str(batch): {
            name: timing.latency[batch].ratio_to(timings[0].latency[batch])
            for name, timing in zip(files, timings, strict=True)
        }
        for batch in BATCHES
    }
