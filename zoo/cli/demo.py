"""Write a page that runs networks in the browser: a static folder that needs no network.

On the page, people give a picture or use the camera; each network answers beside the others, with its milliseconds and
megabytes, and a slider moves sample pictures along an adversarial direction until the networks give way. Serve the
folder with its own serve.py, or with any web server.
"""

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub

TASK = "deploy"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, write the page, and print how to open it."""
    from zoo.demo import Demo, write_demo

    parser.add_argument(
        "runs", nargs="+", type=str, metavar="RUN|NAME", help="Runs and published models of one task, side by side."
    )
    add_hub(parser)
    parser.add_fields(Demo)
    options = parser.parse_args(argv).as_dict()
    runs, hub = options.pop("runs"), options.pop("hub")

    from zoo.screen import stages

    with stages("opening") as say:
        written = write_demo(runs, Demo(**options), hub, say)
    print(f"saved in {written.folder} ({written.bytes / 1e6:.1f} MB)")
    print(f"next: python {written.folder / 'serve.py'}")
