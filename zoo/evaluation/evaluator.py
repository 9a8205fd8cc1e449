"""The verdicts on one model: which images it classifies correctly, and which stay robust to an attack."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from rich.progress import Progress
from torch import Tensor, nn

from zoo.attacks import ATTACKS, Attack, AttackedModel, Gradients, MinimumNorm, Queries, check_eps, format_eps, fp32
from zoo.errors import UserError
from zoo.evaluation.outcomes import Outcomes
from zoo.evaluation.progress import note
from zoo.evaluation.sweeps import Sweep
from zoo.runs.records import Evaluation
from zoo.runtime.complexity import count_macs
from zoo.runtime.eval_mode import require_eval_mode

CLEAN = "clean"
"""Name of the verdicts without an attack."""
POOL_BYTES = 2**26
"""Size in fp32 of the images attacked side by side: batches stay full when some images are misclassified."""
POOL_MACS = 10**14
"""Most multiply-accumulates of such a pool on a CPU, about half an hour of one core: verdicts are kept pool by pool,
and an evaluation that is killed loses one pool."""


class Evaluator:
    """A model and the images it is evaluated on.

    Args:
        model, images, labels, batch_size, outcomes, gradients, queries: see `evaluate`.
        bar: to show the running accuracy on.

    Attributes:
        correct: which images are classified correctly without an attack, bool (N,).
        classes: of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        outcomes: Outcomes,
        bar: Progress,
        gradients: Gradients = "fp32",
        queries: Queries | None = None,
    ) -> None:
        if not len(images):
            raise UserError("there are no images to evaluate on")
        if images.dtype != torch.uint8 or labels.shape != images.shape[:1]:
            got = f"{images.dtype} {tuple(images.shape)} and labels {tuple(labels.shape)}"
            raise UserError(f"an evaluation needs uint8 images (N, C, H, W) and labels (N,): got {got}")
        require_eval_mode(model, "an evaluation")
        self.model, self.images, self.labels = model, images, labels
        self.batch_size, self.outcomes, self.bar = batch_size, outcomes, bar
        self.gradients, self.queries = gradients, queries
        self.device = next(model.parameters(), torch.empty(0)).device
        attacked = AttackedModel(model, batch_size)
        with fp32(self.device):
            first = self._batch(torch.arange(1))[0]
            self.classes = attacked.logits(first).shape[1]
            _, channels, height, width = first.shape
            self.at_once, self.macs = attacked.at_once(first), count_macs(model, (channels, height, width))
            self.correct = self._verdicts_of(CLEAN, torch.ones(len(images), dtype=torch.bool), 1, attacked.correct)

    def evaluation(self, attack: Attack, eps: float) -> Evaluation:
        """Measure the accuracy under one attack at one radius."""
        settings = asdict(attack) | ({"gradients": self.gradients} if self.gradients != "fp32" else {})
        robust = self.robust_by_part(attack, eps)
        parts = {name: share(verdicts) for name, verdicts in robust.items()} if len(robust) > 1 else {}
        return Evaluation(
            attack=ATTACKS.name_of(attack),
            norm=settings.pop("norm"),
            eps=eps,
            accuracy=share(list(robust.values())[-1]),
            n=len(self.images),
            options=settings,
            parts=parts,
            skipped={ATTACKS.name_of(a): a.obstacle(self.classes) for a in attack.skipped(self.classes)},
        )

    def robust_by_part(self, attack: Attack, eps: float) -> dict[str, Tensor]:
        """Return which images are still robust after each part of an attack, by the part's name: bool (N,) each."""
        verdicts, found = self.correct, {}
        for part in attack.parts(self.classes):
            if isinstance(part, MinimumNorm):
                check_eps(eps, part.norm, self.images[0].numel())
                verdicts = verdicts & (self._distances(part, attack) > eps)
                found[ATTACKS.name_of(part)] = verdicts
                continue

            def survives(images: Tensor, labels: Tensor, part: Attack = part) -> Tensor:
                return part(
                    self.model,
                    images,
                    labels,
                    [eps],
                    batch_size=self.batch_size,
                    tick=self._tick,
                    gradients=self.gradients,
                    queries=self.queries,
                ).robust[0]

            name = _name(part, attack, eps, self.gradients)
            verdicts = self._verdicts_of(name, verdicts, part.passes(self.classes), survives, _title(part, eps))
            found[ATTACKS.name_of(part)] = verdicts
        return found

    def _distances(self, part: MinimumNorm, attack: Attack) -> Tensor:
        """Return the distance of the nearest misclassified image of each image, one search for all radii: (N,)."""

        def measured(images: Tensor, labels: Tensor) -> Tensor:
            return part.distances(
                self.model,
                images,
                labels,
                batch_size=self.batch_size,
                tick=self._tick,
                gradients=self.gradients,
            )

        name, title = _name(part, attack, None, self.gradients), f"{ATTACKS.name_of(part)} {part.norm}"
        start = torch.where(self.correct, torch.inf, 0.0).double()
        return self._verdicts_of(name, self.correct, part.passes(self.classes), measured, title, start)

    def _verdicts_of(
        self,
        name: str,
        asked: Tensor,
        passes: int,
        verdicts: Callable[[Tensor, Tensor], Tensor],
        title: str = "clean",
        start: Tensor | None = None,
    ) -> Tensor:
        """Return which of the requested images pass, from the kept outcomes or pool by pool: bool (N,).

        With ``start``, the verdicts are distances, (N,), and ``start`` has them before the search.
        """
        known = self.outcomes.get(name)
        if known is not None:
            return known
        first = asked if start is None else start
        passed, searched = self.outcomes.begun(name) or (first.clone(), ~asked)
        total, rows = int(asked.sum()), (~searched).nonzero().flatten()
        self._task = self.bar.add_task(title, total=total * passes, accuracy=share(passed))
        pools = rows.split(self._pool(passes)) if len(rows) else ()  # zero rows would be split into one empty pool
        for pool in pools:
            completed = (total - int((~searched).sum())) * passes
            self.bar.update(self._task, completed=completed, accuracy=share(passed))
            passed[pool] = verdicts(*self._batch(pool)).cpu()
            searched[pool] = True
            if not bool(searched.all()):
                self.outcomes.put(name, passed, searched)
            note(self.bar, f"{title}: {total - int((~searched).sum())} of {total} images searched", share(passed))
        self.outcomes.put(name, passed)
        return passed

    def _pool(self, passes: int) -> int:
        """Return how many images to search side by side, whole batches of them on a CPU."""
        pool = max(1, POOL_BYTES // (4 * self.images[0].numel()))
        if self.device.type != "cpu":
            return pool
        affordable = POOL_MACS // max(1, passes * self.macs) // self.at_once * self.at_once
        return min(pool, max(affordable, self.at_once))

    def _tick(self, images: int) -> None:
        self.bar.advance(self._task, images)

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[rows].to(self.device).float().div(255), self.labels[rows].to(self.device)


def searches(sweeps: Sequence[Sweep], classes: int, gradients: Gradients = "fp32") -> list[str]:
    """Return the names under which an evaluation keeps its verdicts, of each part of each attack, clean ones first."""
    names = [
        _name(part, sweep.attack, None if isinstance(part, MinimumNorm) else eps, gradients)
        for sweep in sweeps
        for eps in sweep.eps
        for part in sweep.attack.parts(classes)
    ]
    return [CLEAN, *dict.fromkeys(names)]


def _name(part: Attack, attack: Attack, eps: float | None, gradients: Gradients) -> str:
    """Return the name of the verdicts at a radius, or of distances, which have none."""
    whole = "" if part is attack else f"{attack!r}: "
    kept = f"{whole}{part!r} " + ("distances" if eps is None else f"at {eps!r}")
    return kept + (f" by {gradients}" if gradients != "fp32" else "")


def _title(attack: Attack, eps: float) -> str:
    return f"{ATTACKS.name_of(attack)} {attack.norm} {format_eps(eps)}"


def share(verdicts: Tensor) -> float:
    """Return the share of true verdicts, or of distances above 0, (N,)."""
    return int((verdicts > 0).sum()) / len(verdicts)
