"""Write an HTML page on finished runs: accuracy, robustness, size, speed and conditioning side by side."""

from pathlib import Path

from zoo.cli._parser import Parser

TASK = "compare"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, write the page with its charts and figures, and print where they are."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="Folders of finished trainings.")
    add("--out", type=Path, default=Path("report.html"), help="Page to write; charts and figures go beside it.")
    add("--bench", nargs="*", type=Path, default=[], help="Files of zoo bench, besides bench.json in the runs.")
    options = parser.parse_args(argv)

    from zoo.report import write_report
    from zoo.screen import stages

    with stages("reading") as say:
        written = write_report(options.runs, options.out, bench=options.bench or [], say=say)
    print(
        f"saved in {written.page} ({written.page.stat().st_size / 1e6:.1f} MB), figures in {written.data}, "
        f"{len(written.pictures)} charts in {written.page.with_suffix('')}"
    )
