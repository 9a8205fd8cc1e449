"""Measure a run's accuracy under attack, calibration, condition numbers and Lipschitz bound, on the test split.

The figures are added to the run's card, and the robustness curve is drawn to RUN/robustness.png. The
network is measured in its deployed form, in fp32, in eval mode. RUN/outcomes.npz keeps the verdict on each image after
each search: the same command resumes after an interruption.

With --compression A,B,... the command measures networks inside a nested run, adds them to the card's curve, and draws
accuracy against multiply-accumulates to RUN/curve.png.

With --shard K/N the command evaluates one of N parts of the images and keeps its verdicts in RUN/outcomes.K-of-N.npz;
with --merge N it puts the parts together, and continues as if it had evaluated them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.cli._own_data import card_with_data
from zoo.cli._parser import Parser
from zoo.cli._run import add_run
from zoo.cli._size_curve import check_curve, requested_cuts, show_curve
from zoo.errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    "`quick` (FGSM, PGD-20; in L1 APGD, in L0 sigma-zero), `reliable` (the constraint-relaxation attack, Linf 8/255), "
    "`standard` (AutoAttack, Linf 8/255), `full` (AutoAttack with 5 restarts, Linf 8/255 and L2 0.5), or attacks by "
    "name, such as fgsm,apgd."
)


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, evaluate, save, and print the table."""
    _add_arguments(parser)
    options = parser.parse_args(argv)

    import torch

    from zoo.backbone.folded import folded
    from zoo.data import load_test
    from zoo.evaluation import Origin, Outcomes, calibration, detection, evaluate, merge, probe, sanity, searches
    from zoo.export.queries import faster_queries
    from zoo.hub.runs import look_at, open_run
    from zoo.probes import ProbeContext

    shard, sweeps, device = _checked(options), _sweeps(options), device_named(options.device)
    probes = probes_of(options.probes, options.seed)
    known = card_with_data(
        look_at(options.run, options.hub), options.data, data_dir=options.data_dir, download=options.download
    )
    check_radii(sweeps, math.prod(known.image_shape))
    others = _other_images(options, known)
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
    rows = torch.arange(len(images))[shard.rows(len(images)) if shard else slice(None)]
    queries = (
        faster_queries(model, known.image_shape, sweeps, len(rows), options.batch_size) if device == "cpu" else None
    )
    measure = partial(
        evaluate,
        exported,
        sweeps=sweeps,
        batch_size=options.batch_size,
        gradients=options.gradients,
        queries=queries,
        device=device,
    )
    whole = run.folder / OUTCOMES
    if shard:
        measure(images=images[rows], labels=labels[rows], outcomes=shard.outcomes(whole, origin))
        _show_part(shard, whole, len(labels[rows]), len(labels))
        return
    if options.merge is None:
        outcomes = Outcomes(whole, origin.owner)
    else:
        names = searches(sweeps, len(known.class_names), options.gradients)
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
    detected = [] if others is None else detection(exported, images, others, options.ood, options.batch_size)
    card = card.with_findings(findings).with_detection(detected)
    run.save_card(card)
    shown = card.model_copy(update={"evaluations": tuple(found), "detection": tuple(detected)})
    _show(run, shown, findings, obstacle)


def _checked(options: Any) -> Shard | None:
    """Return the requested part, if any; refuse numbers and combinations without meaning."""
    from zoo.evaluation import Shard

    if options.batch_size < 1 or (options.n != "all" and options.n < 1):
        raise UserError("--batch-size and --n must be at least 1")
    if options.compression is not None:
        check_curve(options)
        if options.ood is not None:
            raise UserError("--ood is of a whole run: leave it out with --compression")
    elif options.time:
        raise UserError("--time is of networks inside a nested run: give --compression, or time a file with zoo bench")
    if options.shard is None:
        return None
    if options.merge is not None:
        raise UserError("--shard and --merge cannot be combined: --merge N comes when all N parts are there")
    if options.probes is not None:
        raise UserError("--probes look at all images: leave them out with --shard, and give them with --merge")
    if options.ood is not None:
        raise UserError("--ood looks at all images: leave it out with --shard, and give it with --merge")
    return Shard.parse(options.shard)


def _other_images(options: Any, card: Card) -> Tensor | None:
    """Return test images of the data set of --ood, as many as of the run's at most; None: there is no such data set."""
    from zoo.data import data_name, load_other

    if options.ood is None:
        if options.ood_dir is not None:
            raise UserError("--ood-dir is of the data set of --ood: give its name too, such as --ood svhn")
        return None
    if data_name(options.ood) == data_name(card.data) and not options.ood_dir:
        raise UserError(f"--ood {options.ood}: the run is of {card.data} too; give another data set")
    n = None if options.n == "all" else options.n
    size = card.image_shape[1]
    try:
        return load_other(
            options.ood, data_dir=options.ood_dir, download=options.download, image_size=size, n=n, seed=options.seed
        )
    except UserError as error:
        raise UserError(f"--ood {options.ood}: {error}".replace("--data-dir", "--ood-dir")) from None


def _show_part(shard: Shard, whole: Path, own: int, n: int) -> None:
    """Report that a part is done; its figures are not the run's, so none are shown."""
    print(f"part {shard}: {own:,} of {n:,} images evaluated, verdicts in {shard.file(whole)}; the card is unchanged")
    print(f"when all {shard.of} parts are there: the same command with --merge {shard.of} in place of --shard {shard}")


def _show(run: Run, card: Card, findings: list[Finding], obstacle: str) -> None:
    """Print the new figures, and draw their curves."""
    from zoo.evaluation import print_card, print_detection, print_findings
    from zoo.evaluation.curve import draw_curve, draw_weight_curve
    from zoo.runs.run import CARD

    title = f"{card.arch} {card.method}, {card.data}, {card.evaluations[0].n:,} test images"
    print_card(card, no_bound_for=obstacle)
    print_findings(findings)
    print_detection(card.detection)
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
    add(
        "--ood",
        type=str | None,
        default=None,
        metavar="DATA",
        help="Another data set, such as svhn or imagefolder: how well confidences tell its images from the run's.",
    )
    add("--ood-dir", type=Path | None, default=None, help="Where the files of --ood are.")
    add("--norms", type=str, help="Linf, L2, L1, L0 or several; default Linf,L2, or Linf where --eps is given.")
    add(
        "--eps",
        type=str,
        help="Radii in pixels of [0, 1], such as 2/255,8/255, in L0 5,10, or by norm: Linf=8/255,L2=0.5,L0=5,10.",
    )
    add(
        "--n",
        type=int | Literal["all"],
        default=1000,
        help="Test images, the same share of each class, or all.",
    )
    add("--shard", type=str | None, default=None, help="Evaluate part K of N only, such as 2/8; see --merge.")
    add("--merge", type=int | None, default=None, help="Put N parts of --shard together, else with the same options.")
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
    return requested_sweeps(options.attacks, options.norms, options.eps, options.seed)


def requested_sweeps(attacks: str | None, norms: str | None, eps: str | None, seed: int) -> list[Sweep]:
    """Return the attacks and radii that lists of words request."""
    from zoo.attacks import NORMS
    from zoo.evaluation import choose_sweeps, parse_radii

    words = words_of(norms, "norms")
    for norm in words:
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS)
    chosen = [norm for norm in NORMS if norm in words]
    radii = parse_radii(",".join(words_of(eps, "eps"))) or None
    return choose_sweeps(words_of(attacks, "attacks"), chosen or None, radii, seed)


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


def device_named(name: str) -> str:
    """Return the device of --device; refuse one that is not there."""
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
