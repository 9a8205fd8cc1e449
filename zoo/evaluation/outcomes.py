"""Verdicts per image and search, kept so that figures can be recomputed and evaluations resumed."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UserError, first_line
from zoo.files import atomic

OUTCOMES = "outcomes.npz"
"""The file in a RUN folder that keeps the verdicts of its evaluation."""
SEARCHES = 3
"""Version, raised when an attack changes, so that verdicts of the older search are not taken for the new one's."""


def identity(weights_sha256: str, images: Tensor, labels: Tensor) -> str:
    """Return a digest of the owner of outcomes: the weights, the images, their labels and the searches' version."""
    digest = hashlib.sha256(f"{SEARCHES} {weights_sha256}".encode())
    for tensor in (images, labels):
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


class Outcomes:
    """Verdicts on N images by the name of a search, in a file that each `put` rewrites.

    A search that was completed is kept as bool (N,), one that has begun as (2, N): verdicts, and which images were
    searched. A minimum-norm attack has distances in float64 in the place of verdicts.

    Args:
        path: of the npz; None keeps them in memory only. A file of another model or of other images is
            replaced at the first `put`.
        owner: see `identity`.
        about: the owner in words, kept beside it.

    Attributes:
        foreign: the file's description of itself if it has another owner; otherwise None.

    Raises:
        UserError: the file is damaged.
    """

    OWNER, ABOUT = "owner", "about"

    def __init__(self, path: Path | None = None, owner: str = "", about: str = "") -> None:
        self.path, self.owner, self.about = path, owner, about
        self.foreign: str | None = None
        self._verdicts: dict[str, Tensor] = {}
        if path is not None and path.is_file():
            self._verdicts = self._load(path)

    def _load(self, path: Path) -> dict[str, Tensor]:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        except Exception as error:  # of the archive, its compression or the arrays' headers
            raise UserError(f"{path} cannot be read ({first_line(error)}): delete it to evaluate anew") from None
        owner, about = (str(found.pop(key, "")) for key in (self.OWNER, self.ABOUT))
        if owner != self.owner:
            self.foreign = about
            return {}
        return {name: torch.from_numpy(verdicts) for name, verdicts in found.items()}

    def get(self, name: str) -> Tensor | None:
        """Return the verdicts (N,) of a search that was completed, or None."""
        kept = self._verdicts.get(name)
        return kept if kept is not None and kept.ndim == 1 else None

    def begun(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Return the verdicts (N,) of a search that is not complete and which images it has done (N,), or None."""
        kept = self._verdicts.get(name)
        return (kept[0].clone(), kept[1].bool()) if kept is not None and kept.ndim == 2 else None

    def take_over(self, other: "Outcomes") -> None:
        """Use the completed searches of the same owner in another file, too; this file has them from the next `put`."""
        if other.owner == self.owner:
            self._verdicts |= {name: kept for name, kept in other._verdicts.items() if kept.ndim == 1}

    def put(self, name: str, verdicts: Tensor, searched: Tensor | None = None) -> None:
        """Keep the verdicts (or distances) of a search, (N,), and which images it has done, bool (N,), if not all."""
        both = [] if searched is None else [verdicts, searched.to(verdicts.dtype)]
        self._verdicts[name] = torch.stack(both).cpu() if both else verdicts.cpu()
        if self.path is None:
            return
        arrays = {name: verdicts.numpy() for name, verdicts in self._verdicts.items()}
        arrays |= {self.OWNER: np.array(self.owner)} | ({self.ABOUT: np.array(self.about)} if self.about else {})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(self.path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
