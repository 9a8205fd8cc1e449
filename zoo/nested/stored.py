"""The stored form of a nested network, of which every size is a beginning, and a run made of such a beginning."""

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.backbone import with_normalization
from zoo.constraints import OrderedSpectrum
from zoo.errors import UserError
from zoo.evaluation import condition_numbers
from zoo.files import sha256_of_beginning
from zoo.lowrank.factorize import Ranks
from zoo.lowrank.layers import factorized_layers, uninitialized
from zoo.lowrank.shells import State, split_shells
from zoo.lowrank.sizes import NAME, sizes_of
from zoo.methods import METHODS
from zoo.methods.nested_lowrank import NestedLowrank
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.nested.cut import SAME, smaller_card
from zoo.runs.card import Card
from zoo.runs.ordered_file import write_ordered
from zoo.runs.records import Prefix
from zoo.runs.run import CARD, Run, save_weights
from zoo.runs.task import Task
from zoo.runtime.batch_norm import load_running_statistics_

BACKBONE = "backbone."
HALF_A_DIGIT = 5e-4
"""Largest difference of a compression and the one that is meant: they are shown to users with three digits."""


def write_nested(run: Run, state: State, path: Path) -> tuple[Prefix, ...]:
    """Write the weights of a nested run so that each size is a beginning of the file, and describe the beginnings.

    Args:
        run: nested.
        state: its weights, perhaps in other number formats.
        path: of the safetensors file.
    """
    network, sizes = sizes_of(run.trained_model())
    ranks = [*reversed(sizes.ranks), run.card.ranks]
    columns = {}
    for name, layer in factorized_layers(network):
        of_sizes = [layer.ranks_at(r[name]) for r in ranks]
        if of_sizes[0] != of_sizes[-1]:
            columns[BACKBONE + name] = of_sizes
    shared, *shells = split_shells(state, columns)
    for i in range(len(sizes)):
        for key in (f"{BACKBONE}{NAME}.mean_{i}", f"{BACKBONE}{NAME}.variance_{i}"):
            shells[len(sizes) - 1 - i][key] = shared.pop(key)
    ends = write_ordered([shared, *shells], path)[1:]
    compressions = [*reversed(sizes.compressions), run.card.compression]
    return tuple(
        Prefix(compression=compression, bytes=end, sha256=sha256_of_beginning(path, end))
        for compression, end in zip(compressions, ends, strict=True)
    )


def choose_prefix(card: Card, name: str, compression: float) -> Prefix:
    """Return the beginning that holds a size.

    Raises:
        UserError: the model has no such beginning; the message lists those it has.
    """
    if not card.prefixes:
        raise UserError(
            f"{name} is stored as a whole: leave --compression out; zoo export --compression cuts a nested one"
        )
    for prefix in card.prefixes:
        if abs(prefix.compression - compression) <= HALF_A_DIGIT:
            return prefix
    known = ", ".join(f"{prefix.compression:.3g}" for prefix in reversed(card.prefixes))
    raise UserError(
        f"{name} is stored at the compressions {known}: give one of them, or download all of it and cut it with "
        "`zoo export --compression`"
    )


def write_size(card: Card, compression: float, state: State, folder: Path) -> Run:
    """Write a run of one size, from the weights at the beginning of a nested network's file.

    Args:
        card: of the nested network.
        compression: of the size, as in ``card.prefixes``.
        state: tensors of the beginning, put together.
        folder: exists and is empty.
    """
    nested = METHODS.saved(card.method, card.method_options, folder / CARD)
    assert isinstance(nested, NestedLowrank)
    task = Task(card.arch, card.stem, card.data, card.image_shape, card.mean, card.std, card.class_names)
    backbone = task.backbone()
    sizes: dict[float, Ranks] = nested.sizes(backbone, card.ranks)
    i = next((i for i, known in enumerate(sizes) if abs(known - compression) <= SAME), None)
    ranks = card.ranks if i is None else [*sizes.values()][i]
    method = RobustLowrank(tau=nested.tau, convolution=nested.convolution)
    with uninitialized():
        method.convert(backbone, ranks)
    own: dict[str, Tensor] = {key.removeprefix(BACKBONE): value for key, value in state.items()}
    backbone.load_state_dict({key: value for key, value in own.items() if not key.startswith(f"{NAME}.")})
    if i is not None:
        load_running_statistics_(backbone, own[f"{NAME}.mean_{i}"], own[f"{NAME}.variance_{i}"])
    OrderedSpectrum(nested.tau).project_if_outside_(backbone)
    trained = with_normalization(backbone, card.mean, card.std).eval()
    point = next((p for p in card.curve if abs(p.compression - compression) <= SAME), None)
    update: dict[str, Any] = {
        "name": None,
        "method": METHODS.name_of(method),
        "method_options": dataclasses.asdict(method),
        "evaluations": point.evaluations if point else (),
        "weights": save_weights(trained, folder),
    }
    written = smaller_card(card, method, method.deploy(trained), ranks, condition_numbers(trained))
    written.model_copy(update=update).save(folder / CARD)
    return Run(folder)
