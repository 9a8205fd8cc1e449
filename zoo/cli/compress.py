"""Compress your own checkpoint, or a published model, to a budget without training.

The result is a RUN folder, which `zoo export`, `zoo evaluate` and `zoo train --init` take. With --data the factors are
fitted to the outputs of the layers on training images, BatchNorm's statistics are estimated anew, and the accuracy
before and after is printed.
"""

import shlex
import sys
from dataclasses import fields

from zoo.cli._parser import Parser

TASK = "train"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, compress, and print the result."""
    from zoo.cli._request import Request
    from zoo.cli.train import add_plugin, describe_plugin, plugged_in
    from zoo.oneshot.config import CompressConfig

    asked_for_help = "--help" in argv or "-h" in argv
    line = Request.read([word for word in argv if word not in ("--help", "-h")])
    name = line.names["method"]
    parser.add_argument("arch", type=str, metavar="ARCH", help="Architecture: a name that timm knows.")
    parser.add_fields(CompressConfig)
    (describe_plugin if asked_for_help else add_plugin)(parser, "method", name)
    options = parser.parse_args(["--help"] if asked_for_help else line.words()).as_dict()
    config = CompressConfig(**{field.name: options[field.name] for field in fields(CompressConfig)})
    how = options["method"]
    chosen = any(word.startswith("--method.init") for word in line.words())
    if "init" in how and config.data is not None and not chosen:
        how["init"] = "outputs"
    method = plugged_in("method", name, how)

    from zoo.oneshot import compress_checkpoint

    done = compress_checkpoint(options["arch"], method, config, shlex.join(["zoo", *sys.argv[1:]]))
    card, folder = done.run.card, done.run.folder
    params = f"{card.params:,} parameters, {card.compression:.1%} fewer than {card.dense_params:,}"
    print(f"{card.arch} {card.method}: {params}")
    print(f"multiply-accumulates {card.macs:,}, dense {card.dense_macs:,}; {done.seconds:.0f} s")
    if done.before is not None and done.after is not None:
        images = f"{done.after.n:,} test images of {card.data}"
        print(f"accuracy on {images}: before {done.before.accuracy:.2%}, after {done.after.accuracy:.2%}")
    print(f"saved in {folder}\nnext: zoo export {folder}, or train it further with zoo train --init {folder}")
