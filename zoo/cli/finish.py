"""Apply a last step to a finished run, and leave the result as a run of its own."""

import shlex
import sys
from pathlib import Path

from zoo.cli._parser import Parser
from zoo.cli._plugin_flags import FLAGS
from zoo.cli._request import Request
from zoo.cli.train import add_plugin, describe_plugin, plugged_in, read_recipe
from zoo.errors import UserError

TASK = "train"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, refine, measure, and print the card."""
    request = Request.read(argv)
    name = request.names["finish"]
    asked_for_help = "--help" in argv or "-h" in argv
    parser.add_argument("run", type=Path, help="Folder of a finished training; it stays as it is.")
    if asked_for_help:
        describe_plugin(parser, "finish", name)
    else:
        add_plugin(parser, "finish", name)
    parser.add_argument("--out", type=Path | None, default=None, help="Folder of the new run; default RUN-FINISHER.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace a run that is already there.")
    parser.add_argument("--data-dir", type=Path | None, default=None, help="Where the data is now, if it has moved.")
    options = parser.parse_args(request.words() if not asked_for_help else ["--help"])
    if name == "none":
        others = ", ".join(x for x in FLAGS["finish"].names() if x != "none")
        raise UserError(f"name what to apply: --finish with one of {others}")
    finisher = plugged_in("finish", name, options.finish.as_dict())

    from zoo.evaluation import print_card
    from zoo.runs.run import CONFIG, Run
    from zoo.training.parts import Parts
    from zoo.training.refine import refine

    run = Run(options.run)
    config, plugged, _ = read_recipe(Parser(), ["--config", str(run.folder / CONFIG)])
    config.data_dir = options.data_dir or config.data_dir
    parts = Parts(*(plugged | {"finish": finisher}).values())
    folder = options.out or run.folder.with_name(f"{run.name}-{name}")
    if folder.resolve() == run.folder.resolve():
        raise UserError(f"{folder} is the run that is finished, which is not changed: choose another --out")
    command = shlex.join(["zoo", *sys.argv[1:]])
    finished = refine(run, config, parts, folder, command, overwrite=options.overwrite)
    print_card(finished.card)
    print(f"\nsaved in {finished.folder}\nnext: zoo export {finished.folder} && zoo bench {finished.folder}")
