"""One evaluation in parts on the workers of an engine: the verdicts are those of one process, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.attacks import Gradients, Queries
from zoo.engines import Device, Engine
from zoo.errors import UserError
from zoo.evaluation.outcomes import Outcomes
from zoo.evaluation.robustness import evaluate
from zoo.evaluation.shards import Origin, Shard, merge
from zoo.evaluation.sweeps import Sweep

Verdicts = dict[str, Tensor]
"""Of each search that was completed, by its name: (n,)."""


@dataclass(frozen=True)
class Setting:
    """What all parts of an evaluation share; see `zoo.evaluation.robustness.evaluate`.

    Attributes:
        model: in eval mode.
        names: of the verdicts that the evaluation needs.
        device: auto: a GPU if the worker has one.
        queries: returns, for a number of images, ``queries`` of `evaluate` on the worker's CPU; a function of a module.
    """

    model: nn.Module
    sweeps: Sequence[Sweep]
    names: Sequence[str]
    batch_size: int
    gradients: Gradients
    device: Device
    queries: Callable[[int], Queries | None] | None = None


@dataclass(frozen=True)
class Part:
    """The images of a part, uint8 (n, C, H, W), their labels, and the searches that were completed before."""

    images: Tensor
    labels: Tensor
    known: Verdicts


def evaluate_part(setting: Setting, part: Part) -> Verdicts:
    """Return the verdicts on a part; a worker calls it."""
    outcomes = Outcomes()
    for name, verdicts in part.known.items():
        outcomes.put(name, verdicts)
    device = "cuda" if setting.device != "cpu" and torch.cuda.is_available() else "cpu"
    evaluate(
        setting.model,
        part.images,
        part.labels,
        setting.sweeps,
        batch_size=setting.batch_size,
        gradients=setting.gradients,
        queries=setting.queries(len(part.labels)) if setting.queries and device == "cpu" else None,
        device=device,
        outcomes=outcomes,
        progress=False,
    )
    return _completed(outcomes, setting.names)


class Spread:
    """An evaluation that the workers of an engine share, part by part.

    A part has the images of one batch, or fewer if there are more workers: which parts there are does not depend on
    the number of workers, so that an evaluation goes on with another one. Finished parts are kept beside the file of
    the whole, as those of ``zoo evaluate --shard`` are.

    Args:
        setting: what the parts share.
        images: uint8 (N, C, H, W).
        labels: (N,).
        whole: file of the whole evaluation's verdicts.
        origin: of the whole evaluation.

    Raises:
        UserError: the file of the whole evaluation is damaged.
    """

    def __init__(self, setting: Setting, images: Tensor, labels: Tensor, whole: Path, origin: Origin) -> None:
        self.setting, self.images, self.labels, self.whole, self.origin = setting, images, labels, whole, origin
        self.known = _completed(Outcomes(whole, origin.owner), setting.names)

    def run(self, engine: Engine, say: Callable[[str], None]) -> Outcomes:
        """Evaluate what is not yet evaluated, and return the verdicts on all images.

        Args:
            engine: whose workers do it.
            say: called with a line on each finished part.

        Raises:
            UserError: there are more workers than images, or see `Engine.map`.
        """
        setting, n = self.setting, len(self.images)
        if engine.workers is not None and engine.workers > n:
            raise UserError(f"{n:,} images cannot be shared by {engine.workers:,} workers: give at most {n:,}")
        if len(self.known) == len(setting.names):
            return Outcomes(self.whole, self.origin.owner)
        of = max(engine.workers or 1, math.ceil(n / setting.batch_size))
        shards = [Shard(k, of) for k in range(1, of + 1)]
        left = [shard for shard in shards if not self._is_finished(shard)]
        parts = [self._part(shard) for shard in left]
        for done, (place, verdicts) in enumerate(engine.map(evaluate_part, setting, parts, setting.device), 1):
            self._keep(left[place], verdicts)
            say(f"part {done} of {len(left)}: {len(parts[place].labels):,} images evaluated")
        merged = merge(self.whole, of, self.origin, setting.names)
        for shard in shards:
            shard.file(self.whole).unlink()
        return merged

    def _part(self, shard: Shard) -> Part:
        rows = shard.rows(len(self.images))
        known = {name: verdicts[rows].clone() for name, verdicts in self.known.items()}
        return Part(self.images[rows].clone(), self.labels[rows].clone(), known)

    def _is_finished(self, shard: Shard) -> bool:
        found = _completed(shard.outcomes(self.whole, self.origin), self.setting.names)
        return len(found) == len(self.setting.names)

    def _keep(self, shard: Shard, verdicts: Verdicts) -> None:
        kept = shard.outcomes(self.whole, self.origin)
        for name, found in verdicts.items():
            kept.put(name, found)


def _completed(outcomes: Outcomes, names: Sequence[str]) -> Verdicts:
    found = {name: outcomes.get(name) for name in names}
    return {name: verdicts for name, verdicts in found.items() if verdicts is not None}
