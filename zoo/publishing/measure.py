"""Measure the figures of a card again, on the stored weights."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attacks import ATTACKS, Gradients
from zoo.data import load_test, stratified
from zoo.errors import UserError
from zoo.evaluation import (
    EPS,
    Outcomes,
    Sweep,
    calibration,
    condition_numbers,
    evaluate,
    folded,
    identity,
    lipschitz_bound,
    probe,
    sanity,
)
from zoo.nested.cut import SAME, cut, trained_sizes
from zoo.probes import PROBES, ProbeContext
from zoo.publishing.network import MeasuredNetwork
from zoo.runs.card import Card, merged_evaluations
from zoo.runs.records import CurvePoint, Evaluation, Finding
from zoo.runs.run import Run

SLACK = 0.005
"""Share of the images whose verdict may change with rounding: of fp16 weights, or of another machine's fp32."""


@dataclass(frozen=True)
class EvaluationSplit:
    """The whole test split that a card's figures are measured on: images uint8 (N, C, H, W), labels (N,)."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, card: Card, data_dir: Path | None = None, download: bool = False) -> "EvaluationSplit":
        """Load the split; see `zoo.data.load_test`."""
        images, labels = load_test(
            card.data,
            data_dir=data_dir,
            download=download,
            image_shape=card.image_shape,
            class_names=card.class_names,
            n=None,
        )
        return cls(images, labels)

    def first(self, n: int) -> "EvaluationSplit":
        """Return the n images that ``zoo train`` and ``zoo evaluate`` choose."""
        chosen = stratified(self.labels, n, seed=0)
        return EvaluationSplit(self.images[chosen], self.labels[chosen])

    @property
    def sha256(self) -> str:
        """Digest of shape, pixels and labels."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def tolerance(stated: Evaluation, n: int) -> float:
    """Return the tolerated difference between an accuracy measured on n images and a stated one.

    On the same images, rounding flips few of them; fewer images add four standard errors.
    """
    same = SLACK + 2 / n
    return same if n >= stated.n else same + 4 * math.sqrt(max(stated.accuracy * (1 - stated.accuracy), 0.01) / n)


def clean_accuracy(network: MeasuredNetwork, images: EvaluationSplit) -> float:
    """Return the accuracy of a deployed network, in fp32."""
    return evaluated(network, [], images)[0].accuracy


def sweep_of(evaluations: Sequence[Evaluation]) -> Sweep:
    """Return the attack that evaluations of one setting were made with, over their radii.

    Raises:
        UserError: this version of zoo has no such attack or setting.
    """
    first = evaluations[0]
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in first.options.items() if key != "gradients"}
    attack = ATTACKS.get(first.attack)
    assert first.norm is not None
    try:
        return Sweep(attack(norm=first.norm, **options), tuple(e.eps for e in evaluations))
    except TypeError:
        raise UserError(f"the card's {first.attack} has settings unknown here: `zoo evaluate` the run again") from None


def groups(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Group evaluations under attack by everything except the radius."""
    found: dict[str, list[Evaluation]] = {}
    for e in evaluations:
        if e.norm is not None:
            found.setdefault(repr((e.n, e.attack, e.norm, e.options)), []).append(e)
    return list(found.values())


def evaluated(network: MeasuredNetwork, group: Sequence[Evaluation], images: EvaluationSplit) -> list[Evaluation]:
    """Measure a group of evaluations again, the clean accuracy first.

    Args:
        network: that is attacked in its deployed form.
        group: see `groups`; empty: the clean accuracy alone.
        images: to attack.
    """
    return evaluated_model(network.exported, group, images, network.outcomes(images.images, images.labels))


def evaluated_model(
    exported: nn.Module, group: Sequence[Evaluation], images: EvaluationSplit, outcomes: Outcomes
) -> list[Evaluation]:
    """Measure a group of evaluations on a network; see `evaluated`.

    Args:
        exported: deployed and folded.
        group, images: see `evaluated`.
        outcomes: verdicts that there are already.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    gradients: Gradients = group[0].options.get("gradients", "fp32") if group else "fp32"
    sweeps = [sweep_of(group)] if group else []
    return evaluate(
        exported, images.images, images.labels, sweeps, gradients=gradients, device=device, outcomes=outcomes
    )


def measured(network: MeasuredNetwork, split: EvaluationSplit) -> Card:
    """Return a run's card with every figure measured on the weights in its folder.

    Args:
        network: of the run, whose card lists the measurements and their numbers of images.
        split: the test split.
    """
    card, exported = network.card, network.exported
    n = card.clean.n if card.clean else len(split.labels)
    images = split.first(n)
    found = evaluated(network, [], images)
    for group in groups(card.evaluations):
        found += evaluated(network, group, split.first(group[0].n))[1:]
    numbers = condition_numbers(network.trained)
    update: dict[str, Any] = {
        "evaluations": (),
        "findings": (),
        "sanity": sanity(exported, images.images, images.labels, found),
        "layers": tuple(row.model_copy(update={"condition_number": numbers.get(row.name)}) for row in card.layers),
        "max_condition_number": max((k for k in numbers.values() if k is not None), default=None),
        "lipschitz_bound": lipschitz_bound(network.deployed, card.image_shape).value,
        "data_sha256": split.sha256,
        "detection": (),  # it was measured on weights in fp32, and the other images are not at hand
        "calibration": calibration(exported, images.images, images.labels) if card.calibration else None,
    }
    update["curve"] = tuple(point_again(network, point, split) for point in kept_points(network.run))
    for name in dict.fromkeys(finding.probe for finding in card.findings):
        update["findings"] += tuple(probed(network, split, name))
    return card.model_copy(update=update).with_evaluations(found)


def kept_points(run: Run) -> list[CurvePoint]:
    """Return the points of a card's curve whose networks need no images: those of trained sizes."""
    sizes = trained_sizes(run) if run.card.curve else ()
    return [p for p in run.card.curve if any(abs(p.compression - size) <= SAME for size in sizes[1:])]


def point_again(network: MeasuredNetwork, point: CurvePoint, split: EvaluationSplit) -> CurvePoint:
    """Measure a point of a nested run's curve again.

    Args:
        network: nested.
        point: of its card.
        split: the test split.
    """
    found = cut(network.run, point.compression)
    exported = folded(found.model, network.card.image_shape)
    owner = f"{network.card.weights.sha256} cut to {found.card.params}"

    def again(group: Sequence[Evaluation], images: EvaluationSplit) -> list[Evaluation]:
        path = network.verdicts
        if path is not None:
            path = path.with_stem(f"{path.stem}-{point.compression:g}-{len(images.labels)}")
        outcomes = Outcomes(path, identity(owner, images.images, images.labels))
        return evaluated_model(exported, group, images, outcomes)

    measured = again([], split.first(max((e.n for e in point.evaluations), default=len(split.labels))))
    for group in groups(point.evaluations):
        measured += again(group, split.first(group[0].n))[1:]
    ordered = merged_evaluations((), measured)
    return point.model_copy(update={"evaluations": ordered, "params": found.card.params, "macs": found.card.macs})


def probed(network: MeasuredNetwork, split: EvaluationSplit, name: str) -> list[Finding]:
    """Repeat a probe of a run's card, with the radius at which it made its adversarial images.

    Args:
        network: that is probed in its deployed form.
        split: the test split.
        name: of a probe with findings on the card.
    """
    card = network.card
    eps = max((e.eps for e in card.evaluations if e.norm == "Linf"), default=EPS["Linf"][-1])
    images = split.first(next(finding.n for finding in card.findings if finding.probe == name))
    return probe(ProbeContext(network.exported, images.images, images.labels, eps), [PROBES.get(name)()])
