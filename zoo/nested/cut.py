"""Cut a smaller network out of a nested run, without training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from zoo.budget import OVERSHOOT
from zoo.constraints import OrderedSpectrum
from zoo.errors import UserError
from zoo.evaluation import condition_numbers
from zoo.lowrank.factorize import Ranks, fold, in_form, weight_layers
from zoo.lowrank.nested_ranks import nested_ranks
from zoo.lowrank.prefix import cut_
from zoo.lowrank.sizes import NAME, sizes_of
from zoo.methods import Method
from zoo.methods.nested_lowrank import NestedLowrank
from zoo.nested.recalibrate import recalibrate_
from zoo.runs.card import Card
from zoo.runs.records import LayerRow
from zoo.runs.run import Run
from zoo.runs.task import Task
from zoo.runtime.batch_norm import load_running_statistics_
from zoo.runtime.complexity import count_macs, count_params

SAME = 1e-6
"""Largest difference of two compressions that count as equal."""


@dataclass(frozen=True)
class Cut:
    """A network cut out of a nested run.

    Attributes:
        compression: as it was asked for.
        model: the deployed form in eval mode; images in [0, 1] to logits.
        card: the run's, with the size and the ranks of this network and nothing measured.
        images: training images on which BatchNorm's statistics were estimated; 0: those of a trained size were kept.
    """

    compression: float
    model: nn.Module
    card: Card
    images: int


def trained_sizes(run: Run) -> tuple[float, ...]:
    """Return the compressions that a nested run was trained at, the largest network's own first.

    Raises:
        UserError: the run is not nested.
    """
    if not isinstance(run.method, NestedLowrank):
        raise UserError(
            f"{run.name} was trained by {run.card.method} for one size: --compression cuts networks of "
            "--method nested_lowrank; `zoo train` makes one, `zoo compress` compresses any run once more"
        )
    return (run.card.compression, *run.method.sizes(run.dense_model().get_submodule("backbone"), run.card.ranks))


def cut(run: Run, compression: float, data_dir: Path | None = None, download: bool = False) -> Cut:
    """Return the network inside a nested run of which a share of the parameters is removed.

    The statistics of a trained size are kept. Those of any other are estimated on training images, attacked as in the
    training.

    Args:
        run: nested.
        compression: share of the dense network's parameters to remove, at least; within the trained range.
        data_dir: of the training images; None: where the training found them.
        download: fetch missing images.

    Raises:
        UserError: the run is not nested, the compression is outside its range, or images are needed and not there.
    """
    sizes = trained_sizes(run)
    _check_range(run, compression, sizes)
    trained = run.trained_model()
    network, held = sizes_of(trained)
    ranks, i = _choose(run, compression, held.compressions, held.ranks)
    cut_(network, ranks)
    if i is not None:
        load_running_statistics_(network, *held.statistics(i))
    delattr(network, NAME)
    method = run.method
    assert isinstance(method, NestedLowrank)
    OrderedSpectrum(method.tau).project_if_outside_(network)
    model, images = fold(trained).eval(), 0
    if i is None and ranks != run.card.ranks:
        images = recalibrate_(model, run, data_dir, download, sizes)
    card = smaller_card(run.card, method, model, ranks, condition_numbers(trained))
    return Cut(compression, model, card, images)


def _check_range(run: Run, compression: float, sizes: Sequence[float]) -> None:
    first, last = sizes[0], sizes[-1]
    if not first - OVERSHOOT - SAME <= compression <= last + SAME:
        nearest = last if compression > last else first
        raise UserError(
            f"compression {compression:g} is outside what {run.name} was trained for, {first:.3g} to {last:.3g}: give "
            f"{nearest:.3g}, or train another one"
        )


def _choose(
    run: Run, compression: float, compressions: Sequence[float], ranks: Sequence[Ranks]
) -> tuple[Ranks, int | None]:
    """Return the ranks for a compression, and the trained size that has them; None: the largest network, or none."""
    if compression <= run.card.compression + SAME:
        return run.card.ranks, None
    for i, known in enumerate(compressions):
        if abs(known - compression) <= SAME:
            return ranks[i], i
    method = run.method
    assert isinstance(method, NestedLowrank)
    dense = run.dense_model().get_submodule("backbone")
    layers = [x for x in in_form(weight_layers(dense), method.convolution) if x.name in run.card.ranks]
    around = [found for known, found in zip(compressions, ranks, strict=True) if known < compression]
    inside = around[-1] if around else None
    found = nested_ranks(layers, count_params(dense), run.card.ranks, compression, inside)
    return found, next((i for i, known in enumerate(ranks) if known == found), None)


def smaller_card(
    card: Card, method: Method, model: nn.Module, ranks: Ranks, conditions: dict[str, float | None]
) -> Card:
    """Return the card of a nested run for one of its smaller networks: nothing is measured.

    Args:
        card: of the nested run.
        method: that describes the layers.
        model: the smaller network, deployed.
        ranks: its ranks.
        conditions: condition number of each layer.
    """
    task = Task(card.arch, card.stem, card.data, card.image_shape, card.mean, card.std, card.class_names)
    rows = method.describe_layers(weight_layers(task.backbone()), ranks)
    return card.model_copy(
        update={
            "ranks": ranks,
            "params": count_params(model),
            "macs": count_macs(model, card.image_shape),
            "layers": tuple(LayerRow(**vars(row), condition_number=conditions.get(row.name)) for row in rows),
            "max_condition_number": max((k for k in conditions.values() if k is not None), default=None),
            "lipschitz_bound": None,
            "evaluations": (),
            "sanity": None,
            "calibration": None,
            "findings": (),
            "latency": (),
            "parity": {},
            "curve": (),
            "prefixes": (),
            "files": (),
            "commands": {},
        }
    )
