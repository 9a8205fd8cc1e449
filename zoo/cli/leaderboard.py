"""Write an HTML page that ranks published models: robust accuracy, size and latency, one table per threat model."""

from pathlib import Path

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub

TASK = "compare"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, write the page with its figures and cards, and print where they are."""
    add = parser.add_argument
    add("pattern", nargs="?", type=str, default="*", metavar="PATTERN", help="Models by name, such as 'resnet*'.")
    add("--data", type=str | None, default=None, help="The models of one data set.")
    add("--out", type=Path, default=Path("leaderboard.html"), help="Page to write; figures and cards go beside it.")
    add(
        "--robustbench",
        type=Path | None,
        default=None,
        metavar="DIR",
        help="Write RobustBench's model_info/DATA/NORM/NAME.json into this folder, too.",
    )
    add_hub(parser)
    options = parser.parse_args(argv)

    from zoo.hub.search import published
    from zoo.hub.selection import Selection
    from zoo.leaderboard import gather, write_leaderboard, write_robustbench
    from zoo.screen import stages

    with stages("reading") as say:
        found = published(options.hub)
        chosen = Selection(options.pattern, options.data).of({name: model.entry for name, model in found.items()})
        models = gather({name: found[name] for name in chosen}, say)
        written = write_leaderboard(models, options.out)
    print(
        f"saved in {written.page}: {len(models)} models in {written.tables} tables; figures in {written.data}, "
        f"cards in {written.cards}"
    )
    if options.robustbench:
        done = write_robustbench({model.name: model.card for model in models}, options.robustbench)
        print(f"{len(done.files)} files for RobustBench in {options.robustbench}")
        for name, reason in done.left_out.items():
            print(f"  left out {name}: {reason}")
        if done.left_out:
            print("RobustBench wants: zoo evaluate RUN --attacks standard --n all, before zoo publish RUN")
