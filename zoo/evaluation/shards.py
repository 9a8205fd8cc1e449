"""One evaluation in parts on several machines: each part evaluates every N-th image, and a merge combines them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.evaluation.outcomes import SEARCHES, Outcomes, identity

WORDS = {
    "weights": "other weights",
    "data": "another data set",
    "seed": "another seed",
    "n": "another number of images",
    "searches": "another version of zoo's attacks",
    "owner": "other images",
}
"""Names of differences, by the field of `Origin`."""


@dataclass(frozen=True)
class Origin:
    """The origin of a whole evaluation's verdicts, in words for messages.

    Attributes:
        weights: SHA-256 of the file.
        data: name of the data set.
        seed: of the choice of images.
        n: images chosen.
        searches: `zoo.evaluation.outcomes.SEARCHES`.
        owner: digest of all of it, the images' pixels included; see `identity`.
    """

    weights: str
    data: str
    seed: int
    n: int
    searches: int
    owner: str

    @classmethod
    def of(cls, weights: str, data: str, seed: int, images: Tensor, labels: Tensor) -> "Origin":
        """Return the origin of verdicts on images (n, C, H, W) with labels (n,)."""
        return cls(weights, data, seed, len(images), SEARCHES, identity(weights, images, labels))

    def difference(self, kept: str) -> str:
        """Describe how the origin in a file differs from this one, ``""`` if it does not."""
        try:
            other = json.loads(kept)
            return next((words for field, words in WORDS.items() if other[field] != asdict(self)[field]), "")
        except (ValueError, RecursionError, KeyError, TypeError):
            return "another evaluation"


@dataclass(frozen=True)
class Shard:
    """Part k of N of an evaluation: the images k-1, k-1+N, k-1+2N, ... of those chosen, so that classes are mixed.

    Attributes:
        k: which part, 1..of.
        of: the number of parts, N.
    """

    k: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``K/N``.

        Raises:
            UserError: it is malformed, or K is not in 1..N.
        """
        k, slash, of = text.partition("/")
        if not (slash and k.strip().isdecimal() and of.strip().isdecimal()):
            raise UserError(f"--shard {text!r}: write K/N, such as 2/8 for the second of eight parts")
        shard = cls(int(k), int(of))
        if not 1 <= shard.k <= shard.of:
            raise UserError(f"--shard {text}: of {shard.of} parts, K is between 1 and {shard.of}")
        return shard

    def __str__(self) -> str:
        return f"{self.k}/{self.of}"

    def rows(self, n: int) -> slice:
        """Return which of n images the part evaluates.

        Raises:
            UserError: it has no images.
        """
        if self.of > n:
            raise UserError(f"{n:,} images cannot be cut into {self.of:,} parts: at most {n:,}")
        return slice(self.k - 1, None, self.of)

    def file(self, outcomes: Path) -> Path:
        """Return the file that keeps the part's verdicts, beside that of the whole evaluation."""
        return outcomes.with_stem(f"{outcomes.stem}.{self.k}-of-{self.of}")

    def outcomes(self, whole: Path, origin: Origin) -> Outcomes:
        """Open the part's verdicts; those of another evaluation are replaced at the first `put`.

        Args:
            whole: file of the whole evaluation's verdicts.
            origin: of the whole evaluation.
        """
        return Outcomes(self.file(whole), f"{origin.owner} {self}", json.dumps(asdict(origin)))


def merge(whole: Path, of: int, origin: Origin, searches: Sequence[str]) -> Outcomes:
    """Put the parts of an evaluation together in the file of the whole one, and return that.

    Args:
        whole: file of the whole evaluation's verdicts.
        of: number of parts.
        origin: of the whole evaluation.
        searches: names of the verdicts that are needed, see `zoo.evaluation.evaluator.searches`.

    Raises:
        UserError: a part is missing, not finished, damaged, or belongs to another evaluation.
    """
    if of < 1:
        raise UserError(f"--merge {of}: give the number of parts, at least 1")
    shards = [Shard(k, of) for k in range(1, of + 1)]
    shards[0].rows(origin.n)
    if missing := [shard for shard in shards if not shard.file(whole).is_file()]:
        others = f", nor are {len(missing) - 1} more of {of} parts" if missing[1:] else ""
        then = f"give this command --shard {missing[0]} in place of --merge"
        raise UserError(f"{missing[0].file(whole)} is not there{others}: {then}")
    parts = [_checked(shard, whole, origin, searches) for shard in shards]
    merged = Outcomes(whole, origin.owner)
    for name in searches:
        kept = [part.get(name) for part in parts]
        verdicts = torch.empty(origin.n, dtype=kept[0].dtype)  # type: ignore[union-attr]
        for shard, of_part in zip(shards, kept, strict=True):
            verdicts[shard.rows(origin.n)] = of_part  # type: ignore[assignment]
        merged.put(name, verdicts)
    return merged


def _checked(shard: Shard, whole: Path, origin: Origin, searches: Sequence[str]) -> Outcomes:
    """Return the verdicts of a part that belongs to an evaluation and has completed all of its searches."""
    file, part = shard.file(whole), shard.outcomes(whole, origin)
    again = f"give this command --shard {shard} in place of --merge, or --merge the options that the parts had"
    if part.foreign is not None:
        raise UserError(f"{file} belongs to {origin.difference(part.foreign) or 'another part'}: {again}")
    if name := next((name for name in searches if part.get(name) is None), None):
        if begun := part.begun(name):
            left = f"{int((~begun[1]).sum()):,} of {len(begun[1]):,} images are still to be searched by {name}"
            raise UserError(f"{file} is not finished, {left}: {again}")
        raise UserError(f"{file} has no verdicts of {name}: {again}")
    return part
