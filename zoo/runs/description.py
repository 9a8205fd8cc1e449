"""The card of a network that was just made."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from zoo.lowrank.factorize import Ranks, weight_layers
from zoo.methods import METHODS, Method
from zoo.runs.card import Card
from zoo.runs.records import LayerRow, Provenance, Weights
from zoo.runs.task import Task
from zoo.runtime.complexity import count_macs, count_params


def describe(
    task: Task,
    method: Method,
    deployed: nn.Module,
    ranks: Ranks,
    weights: Weights,
    condition_numbers: Mapping[str, float | None],
    *,
    training: dict[str, Any],
    applied: Sequence[dict[str, Any]],
    provenance: Provenance,
) -> Card:
    """Return the card without what was measured on images.

    Args:
        task: what the network is for.
        method: how it was compressed.
        deployed: the network in its deployed form.
        ranks: what `Method.convert` rebuilds it from.
        weights: the entry of the stored file.
        condition_numbers: of each layer, see `zoo.evaluation.condition_numbers`.
        training, applied, provenance: see `Card`.
    """
    dense = task.backbone()
    rows = method.describe_layers(weight_layers(dense), ranks)
    return Card(
        arch=task.arch,
        stem=task.stem,
        method=METHODS.name_of(method),
        method_options=dataclasses.asdict(method),
        data=task.data,
        image_shape=task.image_shape,
        mean=task.mean,
        std=task.std,
        class_names=task.class_names,
        ranks=ranks,
        params=count_params(deployed),
        dense_params=count_params(dense),
        macs=count_macs(deployed, task.image_shape),
        dense_macs=count_macs(dense, task.image_shape),
        layers=tuple(LayerRow(**vars(row), condition_number=condition_numbers.get(row.name)) for row in rows),
        max_condition_number=max((k for k in condition_numbers.values() if k is not None), default=None),
        training=training,
        applied=tuple(applied),
        weights=weights,
        provenance=provenance,
    )
