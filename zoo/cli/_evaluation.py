"""Evaluate one run: attacks, structure, calibration, probes and detection, added to its card and printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli._own_data import card_with_data
from zoo.cli._size_curve import requested_cuts, show_curve
from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.attacks import Queries
    from zoo.engines import Engine
    from zoo.evaluation import Origin, Outcomes, Shard, Sweep
    from zoo.probes import Probe
    from zoo.runs.card import Card
    from zoo.runs.records import Evaluation, Finding
    from zoo.runs.run import Run

CURVE = "robustness.png"
WEIGHT_CURVE = "weights.png"


@dataclass(frozen=True)
class Settings:
    """What the options of the command come to, checked.

    Attributes:
        shard: the part to evaluate; None: all images.
        sweeps: the attacks with their radii.
        probes: the probes.
        engine: on whose workers the attacks run; None: in this process.
        device: of this process.
    """

    shard: Shard | None
    sweeps: list[Sweep]
    probes: list[Probe]
    engine: Engine | None
    device: str


def evaluate_run(target: str, options: Any, settings: Settings) -> None:
    """Evaluate one run, save, and print the table.

    Args:
        target: RUN folder or published name.
        options: of the command line.
        settings: what they come to.
    """
    from zoo.backbone.folded import folded
    from zoo.data import load_test
    from zoo.evaluation import detection
    from zoo.hub.runs import look_at, open_run

    known = card_with_data(
        look_at(target, options.hub), options.data, data_dir=options.data_dir, download=options.download
    )
    check_radii(settings.sweeps, math.prod(known.image_shape))
    others = _other_images(options, known)
    run = open_run(target, options.hub)
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
        show_curve(run, cuts, options, images, labels, settings.sweeps, settings.device)
        return
    exported = folded(model, known.image_shape)
    network = _Network(run, known, model, exported, images, labels)
    if settings.shard:
        _evaluate_part(network, settings.shard, options, settings)
        return
    found, outcomes = _attacked(network, options, settings)
    card, obstacle = _with_structure(known, run, model)
    card = _checked(card.with_evaluations(found), network, options)  # all figures must agree, not only the new ones
    findings = _probed(network, outcomes, options, settings)
    detected = [] if others is None else detection(exported, images, others, options.ood, options.batch_size)
    card = card.with_findings(findings).with_detection(detected)
    run.save_card(card)
    shown = card.model_copy(update={"evaluations": tuple(found), "detection": tuple(detected)})
    _show(run, shown, findings, obstacle)


def check_radii(sweeps: Sequence[Sweep], pixels: int) -> None:
    """Refuse radii that are impossible for images of so many values."""
    from zoo.attacks import check_eps

    for sweep in sweeps:
        for radius in sweep.eps:
            check_eps(radius, sweep.attack.norm, pixels)


@dataclass(frozen=True)
class _Network:
    """A run's network, deployed and as exported, and the test images that it is evaluated on."""

    run: Run
    card: Card
    deployed: nn.Module
    exported: nn.Module
    images: Tensor
    labels: Tensor

    def origin(self, seed: int) -> Origin:
        """Return what the verdicts on it are of."""
        from zoo.evaluation import Origin

        return Origin.of(self.card.weights.sha256, self.card.data, seed, self.images, self.labels)


def _evaluate_part(network: _Network, shard: Shard, options: Any, settings: Settings) -> None:
    """Evaluate one part of the images, and keep its verdicts."""
    from zoo.evaluation import OUTCOMES

    whole, rows = network.run.folder / OUTCOMES, shard.rows(len(network.images))
    outcomes = shard.outcomes(whole, network.origin(options.seed))
    images, labels = network.images[rows], network.labels[rows]
    _evaluation(network, len(labels), options, settings)(images=images, labels=labels, outcomes=outcomes)
    _show_part(shard, whole, len(labels), len(network.labels))


def _attacked(network: _Network, options: Any, settings: Settings) -> tuple[list[Evaluation], Outcomes]:
    """Return the accuracies under attack, and the verdicts: measured here or by an engine, or merged from parts."""
    from zoo.evaluation import OUTCOMES, Outcomes, Setting, Spread, merge, searches
    from zoo.screen import note

    whole, origin, sweeps = network.run.folder / OUTCOMES, network.origin(options.seed), settings.sweeps
    names, left = searches(sweeps, len(network.card.class_names), options.gradients), len(network.images)
    if settings.engine is not None:
        shared = Setting(
            network.exported,
            sweeps,
            names,
            options.batch_size,
            options.gradients,
            options.device,
            _queried(network, options, settings),
        )
        outcomes = Spread(shared, network.images, network.labels, whole, origin).run(settings.engine, note)
        left = 0
    elif options.merge is None:
        outcomes = Outcomes(whole, origin.owner)
    else:
        outcomes = merge(whole, options.merge, origin, names)
        print(f"{options.merge} parts, {len(network.images):,} images, merged in {whole}\n")
        left = 0
    found = _evaluation(network, left, options, settings)(
        images=network.images, labels=network.labels, outcomes=outcomes
    )
    return [e.model_copy(update={"seed": options.seed}) for e in found], outcomes


def _evaluation(network: _Network, n: int, options: Any, settings: Settings) -> Callable[..., list[Evaluation]]:
    """Return a function that evaluates the network on images; n of them have no verdicts yet."""
    from zoo.evaluation import evaluate

    queries = _queried(network, options, settings)(n) if settings.device == "cpu" and n else None
    return partial(
        evaluate,
        network.exported,
        sweeps=settings.sweeps,
        batch_size=options.batch_size,
        gradients=options.gradients,
        queries=queries,
        device=settings.device,
    )


def _queried(network: _Network, options: Any, settings: Settings) -> Callable[[int], Queries | None]:
    """Return a function of a number of images that returns how attacks without gradients query the network."""
    from zoo.export.queries import faster_queries

    shape = network.card.image_shape
    return partial(faster_queries, network.deployed, shape, settings.sweeps, batch_size=options.batch_size)


def _checked(card: Card, network: _Network, options: Any) -> Card:
    """Return the card with its checks and calibration."""
    from zoo.evaluation import calibration, sanity

    checks = sanity(network.exported, network.images, network.labels, card.evaluations)
    confidence = calibration(network.exported, network.images, network.labels, options.batch_size)
    return card.model_copy(update={"sanity": checks, "calibration": confidence})


def _probed(network: _Network, outcomes: Outcomes, options: Any, settings: Settings) -> list[Finding]:
    from zoo.evaluation import probe
    from zoo.probes import ProbeContext

    eps = _probe_eps(settings.sweeps)
    context = ProbeContext(network.exported, network.images, network.labels, eps, options.batch_size)
    return probe(context, settings.probes, outcomes)


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


def _probe_eps(sweeps: Sequence[Sweep]) -> float:
    """Return the largest Linf radius that was searched: probes make their adversarial images there."""
    from zoo.evaluation import EPS

    return max((eps for sweep in sweeps if sweep.attack.norm == "Linf" for eps in sweep.eps), default=EPS["Linf"][-1])


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
