"""Random search: each image keeps a proposal if it raises the margin of a wrong class, until it is misclassified."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel
from zoo.attacks._losses import margin
from zoo.attacks._random import RandomStreams

if TYPE_CHECKING:
    from jaxtyping import Float, Int

State = tuple[Tensor, ...]
"""What a search keeps of each image, one row each: the present points first."""
Propose = Callable[[int, State, Any, RandomStreams], State]
"""Maps the number of a query, the states, the images and the query's streams to proposed states."""


def random_search(
    attacked: AttackedModel,
    images: Float[Tensor, "batch c h w"],
    labels: Int[Tensor, " batch"],
    start: State,
    propose: Propose,
    queries: int,
    streams: RandomStreams,
) -> Float[Tensor, "batch c h w"]:
    """Return the points with the largest margin that were found; a misclassified image leaves the batch.

    Args:
        attacked: the model under attack.
        images: all classified correctly.
        labels: class indices.
        start: the first states.
        propose: makes the state that each query asks about.
        queries: proposals for each image.
        streams: of the search; query i draws from ``streams.at(1 + i)``.
    """
    state = start
    value = margin(attacked.estimate(state[0]), labels)
    found, rows = state[0].clone(), torch.arange(len(images), device=images.device)
    for query in range(queries):
        gone = value > 0
        if bool(gone.any()):
            value[gone] = margin(attacked.logits(state[0][gone]), labels[gone])  # the estimate may be wrong
            gone = value > 0
            found[rows[gone]] = state[0][gone]
            rows, value, images, labels = (t[~gone] for t in (rows, value, images, labels))
            state, streams = tuple(t[~gone] for t in state), streams[~gone]
        if not len(rows):
            return found
        proposed = propose(query, state, images, streams.at(1 + query))
        margins = margin(attacked.estimate(proposed[0]), labels)
        better = margins > value
        state = tuple(
            torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(proposed, state, strict=True)
        )
        value = torch.where(better, margins, value)
    found[rows] = state[0]
    return found
