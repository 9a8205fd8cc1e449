"""Publish a run to a hub, with figures measured on the stored weights."""

import shlex

from zoo.cli._parser import Parser

TASK = "share"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, measure, publish, and print how others use the model."""
    from zoo.publishing.publish import Publication, publish

    parser.add_argument(
        "run", type=str, metavar="RUN", help="Folder of a finished training, or the name of a published model."
    )
    parser.add_argument("--hub", type=str, required=True, help="Where to: a folder, hf://ORG/REPO, s3://...")
    parser.add_fields(Publication)
    options = parser.parse_args(argv).as_dict()

    from zoo.evaluation import print_card
    from zoo.hub.runs import look_at, open_run
    from zoo.hub.search import open_hub
    from zoo.screen import stages

    target, hub = options.pop("run"), options.pop("hub")
    how = Publication(**options)
    how.name(look_at(target).card)
    run = open_run(target)
    with stages("measuring") as say:
        card = publish(run, hub, how, say)
    print_card(card)
    where = open_hub(hub).address
    print(
        f"\npublished as {card.name} in {where}: {card.weights.bytes / 1e6:.2f} MB of weights in {card.weights.dtype}"
    )
    print(f"next: zoo download {card.name} --hub {shlex.quote(where)}")
