"""Measure how attacks transfer between models: the accuracy of each on adversarial images made on every other.

The models are RUN folders, names, or patterns of published models, all of one data set: zoo transfer 'resnet18.*'
--eps 8/255 --n 500. The command prints the matrix, and writes it as a page with its figures in a JSON file beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub
from zoo.errors import UserError, unknown_name

if TYPE_CHECKING:
    from zoo.evaluation import Sweep
    from zoo.runs.run import Run

TASK = "compare"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, attack each model, print the matrix, and write the page."""
    _add_arguments(parser)
    options = parser.parse_args(argv)
    if options.n < 2 or options.batch_size < 1:
        raise UserError("--n must be at least 2, and --batch-size at least 1")

    from zoo.backbone.folded import folded
    from zoo.cli._evaluation import check_radii
    from zoo.cli.evaluate import device_named
    from zoo.data import check_data_dir, load_test
    from zoo.evaluation.transfer import transfer
    from zoo.report.transfer import print_transfer, write_transfer
    from zoo.screen import stages

    sweep, device = _sweep(options), device_named(options.device)
    if options.out.suffix not in (".html", ".htm"):
        raise UserError(f"--out {options.out} is not a page: give a file name that ends in .html")
    runs = _runs(options.models, options.data, options.hub)
    _check_same_data(runs)
    run = next(iter(runs.values()))
    card = run.card
    check_radii([sweep], card.image_shape[0] * card.image_shape[1] * card.image_shape[2])
    check_data_dir(card.data, options.data_dir)
    images, labels = load_test(
        card.data,
        data_dir=options.data_dir or run.data_dir,
        download=options.download,
        image_shape=card.image_shape,
        class_names=card.class_names,
        n=options.n,
        seed=options.seed,
    )
    with stages("opening the models") as say:
        models = {name: folded(run.model(), card.image_shape) for name, run in runs.items()}
        found = transfer(
            models,
            images,
            labels,
            sweep.attack,
            sweep.eps[0],
            batch_size=options.batch_size,
            gradients=options.gradients,
            device=device,
            say=say,
            seed=options.seed,
        )
    print_transfer(found, card.data)
    written = write_transfer(found, card.data, options.out)
    print(f"saved in {written.page}, figures in {written.data}")


def _add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("models", nargs="+", type=str, metavar="MODEL", help="RUN folders, names or patterns such as 'resnet18.*'.")
    add("--attack", type=str, default="pgd", help="A name of zoo list --attacks, such as pgd or apgd.")
    add("--norm", type=Literal["Linf", "L2", "L1", "L0"] | None, default=None, help="Default: the attack's first.")
    add("--eps", type=str | None, default=None, help="The radius, such as 8/255; default: 8/255, L2 0.5, L1 12, L0 10.")
    add("--data", type=str | None, default=None, help="Of a pattern, the models of one data set.")
    add("--n", type=int, default=500, help="Test images, the same share of each class.")
    add("--seed", type=int, default=0, help="Of the choice of images and of the attack.")
    add("--batch-size", type=int, default=250, help="Images at a time, at most; on a CPU fewer large ones.")
    add("--gradients", type=Literal["fp32", "bf16"], default="fp32", help="Precision of the attack's gradients.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where to compute.")
    add("--data-dir", type=Path | None, default=None, help="Where the data set's files are.")
    add("--download", type=bool, default=False, help="Fetch the data set's files if they are missing.")
    add("--out", type=Path, default=Path("transfer.html"), help="Page to write; its figures go beside it.")
    add_hub(parser)


EPS = {"Linf": 8 / 255, "L2": 0.5, "L1": 12.0, "L0": 10.0}
"""Default radii: those of published benchmarks, and of a sparse attack."""


def _sweep(options: Any) -> Sweep:
    """Return the attack at its radius."""
    from zoo.attacks import ATTACKS, parse_eps
    from zoo.evaluation import choose_sweeps

    if options.attack not in ATTACKS.names():
        raise unknown_name("attack", options.attack, ATTACKS.names())
    norm = options.norm or ATTACKS.get(options.attack).norms[0]
    eps = EPS[norm] if options.eps is None else parse_eps(options.eps)
    return choose_sweeps([options.attack], [norm], [eps], options.seed)[0]


def _runs(words: list[str], data: str | None, hub: str | None) -> dict[str, Run]:
    """Return the models by name, at least two; of two folders of one name, the paths are the names."""
    from zoo.hub.runs import look_at
    from zoo.hub.search import published
    from zoo.hub.selection import Selection

    targets: list[str] = []
    for word in words:
        is_pattern = "/" not in word and any(c in word for c in "*?[")
        chosen = Selection(word, data).of({n: m.entry for n, m in published(hub).items()}) if is_pattern else [word]
        if not chosen:
            raise UserError(f"no published model matches {word}{f' on {data}' if data else ''}: see zoo list --models")
        targets += chosen
    targets = list(dict.fromkeys(targets))
    if len(targets) < 2:
        raise UserError(f"a transfer needs two models or more: {', '.join(words)} is {targets[0]} alone")
    names = [Path(target).name for target in targets]
    distinct = len(set(names)) == len(names)
    return {name if distinct else target: look_at(target, hub) for name, target in zip(names, targets, strict=True)}


def _check_same_data(runs: dict[str, Run]) -> None:
    first, *others = runs.items()
    for name, run in others:
        mine, its = first[1].card, run.card
        for what in ("data", "image_shape", "class_names"):
            one, other = getattr(mine, what), getattr(its, what)
            if one != other:
                pair = f"{one} and {other}" if what != "class_names" else "two sets of classes"
                raise UserError(f"{first[0]} and {name} are of {pair}: attacks transfer between models of one data set")
