"""Merge finished runs that began as one network into one run.

The rules: average (greedy by accuracy under attack), mix (the shares are searched: a dial between clean and robust
accuracy), iso_c, tsv_m, cart and adarank. The result has the ranks of the runs, or a budget of its own, and its
BatchNorms are estimated anew.
"""

import shlex
import sys
from dataclasses import fields

from zoo.cli._parser import Parser
from zoo.cli._request import take
from zoo.plugins.spec import PluginSpec

TASK = "train"
DEFAULT = "average"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, merge, and print the card."""
    named, words = take(argv, "--method", "the name of a merging rule")
    spec = PluginSpec.parse(named[-1] if named else DEFAULT, "--method")

    from zoo.merging import RULES, MergeConfig, merge_runs

    rule = RULES.get(spec.name)
    RULES.check_options(spec.name, spec.options)
    listed = ", ".join(RULES.names())
    parser.add_argument("runs", nargs="+", metavar="RUN", help="RUN folders or published names, at least two.")
    parser.add_argument("--method.name", metavar="RULE", default=spec.name, help=f"Or --method RULE: one of {listed}.")
    parser.add_class_arguments(rule, "method")
    parser.add_fields(MergeConfig)
    options = parser.parse_args([*words, *(f"--method.{key}={value}" for key, value in spec.options.items())])
    values = options.as_dict()
    config = MergeConfig(**{field.name: values[field.name] for field in fields(MergeConfig)})
    how = rule(**{key: value for key, value in values["method"].items() if key != "name"})
    run = merge_runs(values["runs"], how, config, shlex.join(["zoo", *sys.argv[1:]]))

    from zoo.evaluation import print_card

    print_card(run.card)
    for key, value in run.card.applied[-1]["outcome"].items():
        if key != "runs":
            print(f"{key}: {value}")
    print(f"\nsaved in {run.folder}\nnext: zoo export {run.folder} && zoo bench {run.folder}")
