"""Measure a run's accuracy under attack, calibration, condition numbers and Lipschitz bound, on the test split.

The figures are added to the run's card, and the robustness curve is drawn to RUN/robustness.png. The
network is measured in its deployed form, in fp32, in eval mode. RUN/outcomes.npz keeps the verdict on each image after
each search: the same command resumes after an interruption.

With --compression A,B,... the command measures networks inside a nested run, adds them to the card's curve, and draws
accuracy against multiply-accumulates to RUN/curve.png.

With --shard K/N the command evaluates one of N parts of the images and keeps its verdicts in RUN/outcomes.K-of-N.npz;
with --merge N it puts the parts together, and continues as if it had evaluated them all. With --engine ray it spreads
the parts over the workers of a cluster, or of this machine, and merges them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.cli._engine import add_engine, engine_of
from zoo.cli._own_data import card_with_data
from zoo.cli._parser import Parser
from zoo.cli._run import add_run
from zoo.cli._size_curve import check_curve, requested_cuts, show_curve
from zoo.errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from zoo.evaluation import Shard, Sweep
    from zoo.probes import Probe
    from zoo.runs.card import Card
    from zoo.runs.records import Finding
    from zoo.runs.run import Run

TASK = "measure"
CURVE = "robustness.png"
WEIGHT_CURVE = "weights.png"
OUTCOMES = "outcomes.npz"
ATTACKS_HELP = (
    "`quick` (FGSM, PGD-20; in L0 sigma-zero), `reliable` (the constraint-relaxation attack, Linf 8/255), `standard` "
    "(AutoAttack, Linf 8/255), `full` (AutoAttack with 5 restarts, Linf 8/255 and L2 0.5), or attacks by name, such as "
    "fgsm,apgd."
)


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, evaluate, save, and print the table."""
    _add_arguments(parser)
    options = parser.parse_args(argv)

    import torch

    from zoo.backbone.folded import folded
    from zoo.data import load_test
    from zoo.evaluation import Origin, Outcomes, Setting, Spread, calibration, evaluate, merge, probe, sanity, searches
    from zoo.export.queries import faster_queries
    from zoo.hub.runs import look_at, open_run
    from zoo.probes import ProbeContext
    from zoo.screen import note

    shard, sweeps, engine = _checked(options), _sweeps(options), engine_of(options)
    device = _device("auto" if engine else options.device)
    probes = probes_of(options.probes, options.seed)
    known = card_with_data(
        look_at(options.run, options.hub), options.data, data_dir=options.data_dir, download=options.download
    )
    check_radii(sweeps, math.prod(known.image_shape))
    run = open_run(options.run, options.hub)
    model = run.model()
    cuts = requested_cuts(run, options)
    images, labels = load_test(
        known.data,
        data_dir=options.data_dir or run.data_dir,
        download=options.download,
        image_shape=known.image_shape,
        class_names=known.class_names,
        n=None if options.n == "all" else options.n,
        seed=options.seed,
    )
    if cuts:
        show_curve(run, cuts, options, images, labels, sweeps, device)
        return
    origin = Origin.of(known.weights.sha256, known.data, options.seed, images, labels)
    exported = folded(model, known.image_shape)
    rows = shard.rows(len(images)) if shard else torch.arange(len(images))
    queried = partial(faster_queries, model, known.image_shape, sweeps, batch_size=options.batch_size)
    queries = queried(len(rows)) if device == "cpu" and engine is None else None
    measure = partial(
        evaluate,
        exported,
        sweeps=sweeps,
        batch_size=options.batch_size,
        gradients=options.gradients,
        queries=queries,
        device=device,
    )
    whole, names = run.folder / OUTCOMES, searches(sweeps, len(known.class_names), options.gradients)
    if shard:
        measure(images=images[rows], labels=labels[rows], outcomes=shard.outcomes(whole, origin))
        _show_part(shard, whole, len(labels[rows]), len(labels))
        return
    if engine is not None:
        setting = Setting(exported, sweeps, names, options.batch_size, options.gradients, options.device, queried)
        outcomes = Spread(setting, images, labels, whole, origin).run(engine, note)
    elif options.merge is None:
        outcomes = Outcomes(whole, origin.owner)
    else:
        outcomes = merge(whole, options.merge, origin, names)
        print(f"{options.merge} parts, {len(images):,} images, merged in {whole}\n")
    found = measure(images=images, labels=labels, outcomes=outcomes)
    found = [e.model_copy(update={"seed": options.seed}) for e in found]
    card, obstacle = _with_structure(known, run, model)
    card = card.with_evaluations(found)  # all its figures must agree, not only those of this command
    checks = sanity(exported, images, labels, card.evaluations)
    confidence = calibration(exported, images, labels, options.batch_size)
    card = card.model_copy(update={"sanity": checks, "calibration": confidence})
    context = ProbeContext(exported, images, labels, _probe_eps(sweeps), options.batch_size)
    findings = probe(context, probes, outcomes)
    run.save_card(card.with_findings(findings))
    _show(run, card.model_copy(update={"evaluations": tuple(found)}), findings, obstacle)


def _checked(options: Any) -> Shard | None:
    """Return the requested part, if any; refuse numbers and combinations without meaning."""
    from zoo.evaluation import Shard

    if options.batch_size < 1 or (options.n != "all" and options.n < 1):
        raise UserError("--batch-size and --n must be at least 1")
    if options.compression is not None:
        check_curve(options)
    elif options.time:
        raise UserError("--time is of networks inside a nested run: give --compression, or time a file with zoo bench")
    if options.engine is not None and (options.shard, options.merge, options.compression) != (None, None, None):
        raise UserError("--engine cuts an evaluation into parts itself: leave --shard, --merge and --compression out")
    if options.shard is None:
        return None
    if options.merge is not None:
        raise UserError("--shard and --merge cannot be combined: --merge N comes when all N parts are there")
    if options.probes is not None:
        raise UserError("--probes look at all images: leave them out with --shard, and give them with --merge")
    return Shard.parse(options.shard)


def _show_part(shard: Shard, whole: Path, own: int, n: int) -> None:
    """Report that a part is done; its figures are not the run's, so none are shown."""
    print(f"part {shard}: {own:,} of {n:,} images evaluated, verdicts in {shard.file(whole)}; the card is unchanged")
    print(f"when all {shard.of} parts are there: the same command with --merge {shard.of} in place of --shard {shard}")


def _show(run: Run, card: Card, findings: list[Finding], obstacle: str) -> None:
    """Print the new figures, and draw their curves."""
    from zoo.evaluation import print_card, print_findings
    from zoo.evaluation.curve import draw_curve, draw_weight_curve
    from zoo.runs.run import CARD

    title = f"{card.arch} {card.method}, {card.data}, {card.evaluations[0].n:,} test images"
    print_card(card, no_bound_for=obstacle)
    print_findings(findings)
    print(f"\nsaved in {run.folder / CARD}")
    draw_curve(card.evaluations, run.folder / CURVE, title)
    print(f"curve in {run.folder / CURVE}")
    if moved := [finding for finding in findings if finding.probe == "weights"]:
        draw_weight_curve(moved, run.folder / WEIGHT_CURVE, title)
        print(f"curve in {run.folder / WEIGHT_CURVE}")


def _add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add_run(parser)
    add("--attacks", type=str, default="quick", help=ATTACKS_HELP)
    add(
        "--compression",
        type=str | None,
        default=None,
        help="Of a nested run: measure networks inside it, such as 0.5,0.8,0.9.",
    )
    add("--time", type=bool, default=False, help="With --compression: milliseconds of one image on this machine too.")
    add("--probes", type=str | None, default=None, help="More than attacks: all, or names from `zoo list --probes`.")
    add("--norms", type=str, help="Linf, L2, L0 or several; default Linf,L2, or Linf where --eps is given.")
    add("--eps", type=str, help="Radii in pixels of [0, 1], such as 2/255,8/255, in L0 5,10,20; default per norm.")
    add(
        "--n",
        type=int | Literal["all"],
        default=1000,
        help="Test images, the same share of each class, or all.",
    )
    add("--shard", type=str | None, default=None, help="Evaluate part K of N only, such as 2/8; see --merge.")
    add("--merge", type=int | None, default=None, help="Put N parts of --shard together, else with the same options.")
    add_engine(parser)
    add("--batch-size", type=int, default=250, help="Images at a time, at most; on a CPU fewer large ones.")
    add(
        "--gradients",
        type=Literal["fp32", "bf16"],
        default="fp32",
        help="Precision of the attacks' gradients (with bf16, Square queries in TF32); verdicts are always fp32.",
    )
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where to compute.")
    add("--data", type=str | None, default=None, help="Data set of a run that was compressed without one.")
    add(
        "--data-dir",
        type=Path | None,
        default=None,
        help="Where the data set's files are; default: where its training found them.",
    )
    add("--download", type=bool, default=False, help="Fetch the data set's files if they are missing.")
    add("--seed", type=int, default=0, help="Of the choice of images and of the attacks' random starts.")


def _sweeps(options: Any) -> list[Sweep]:
    """Return the attacks and radii that the command line requests, checked before any work is done."""
    from zoo.attacks import NORMS, parse_eps
    from zoo.evaluation import choose_sweeps

    norms = words_of(options.norms, "norms")
    for norm in norms:
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS)
    chosen = [norm for norm in NORMS if norm in norms]
    eps = [parse_eps(word) for word in words_of(options.eps, "eps")]
    return choose_sweeps(words_of(options.attacks, "attacks"), chosen or None, eps or None, options.seed)


def check_radii(sweeps: Sequence[Sweep], pixels: int) -> None:
    """Refuse radii that are impossible for images of so many values."""
    from zoo.attacks import check_eps

    for sweep in sweeps:
        for radius in sweep.eps:
            check_eps(radius, sweep.attack.norm, pixels)


def probes_of(text: str | None, seed: int) -> list[Probe]:
    """Return the probes of a list of names; ``all`` means all of them."""
    from zoo.probes import PROBES

    names = words_of(text, "probes")
    return [PROBES.get(name)(seed=seed) for name in (PROBES.names() if names == ["all"] else names)]


def _probe_eps(sweeps: Sequence[Sweep]) -> float:
    """Return the largest Linf radius that was searched: probes make their adversarial images there."""
    from zoo.evaluation import EPS

    return max((eps for sweep in sweeps if sweep.attack.norm == "Linf" for eps in sweep.eps), default=EPS["Linf"][-1])


def words_of(text: str | None, flag: str) -> list[str]:
    """Split a list at its commas."""
    if text is None:
        return []
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(f"--{flag} is empty: separate its entries with commas")
    return words


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _with_structure(card: Card, run: Run, model: nn.Module) -> tuple[Card, str]:
    """Fill in condition numbers and Lipschitz bound if the card lacks them; return the operations without a bound."""
    from zoo.evaluation import condition_numbers, lipschitz_bound

    obstacle = ""
    if card.max_condition_number is None:
        numbers = condition_numbers(run.trained_model())
        rows = [row.model_copy(update={"condition_number": numbers.get(row.name)}) for row in card.layers]
        largest = max((k for k in numbers.values() if k is not None), default=None)
        card = card.model_copy(update={"layers": tuple(rows), "max_condition_number": largest})
    if card.lipschitz_bound is None:
        bound = lipschitz_bound(model, card.image_shape)
        obstacle = bound.obstacle
        card = card.model_copy(update={"lipschitz_bound": bound.value})
    return card, obstacle
