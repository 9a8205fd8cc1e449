"""Publish a run to a hub, with figures measured on the weights as they are stored."""

from pathlib import Path

from zoo.cli._parser import Parser


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, measure, publish, and print what others do with it."""
    from zoo.hub.publish import Publication, publish

    parser.add_argument("run", type=Path, metavar="RUN", help="Folder of a finished training.")
    parser.add_argument("--hub", type=str, required=True, help="Where to: a folder, hf://ORG/REPO, s3://...")
    parser.add_fields(Publication)
    options = parser.parse_args(argv).as_dict()

    from rich.console import Console

    from zoo.evaluation import print_card
    from zoo.run import Run

    run, hub = Run(options.pop("run")), options.pop("hub")
    with Console(stderr=True).status("") as status:
        card = publish(run, hub, Publication(**options), status.update)
    print_card(card)
    print(f"\npublished as {card.name} in {hub}: {card.weights.bytes / 1e6:.2f} MB of weights in {card.weights.dtype}")
    print(f"next: zoo download {card.name} --hub {hub}")
