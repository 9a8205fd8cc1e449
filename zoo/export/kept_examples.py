"""Adversarial examples kept in files, to be replayed in other files of the same weights and in other runtimes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UserError, first_line
from zoo.evaluation.outcomes import identity
from zoo.evaluation.sweeps import Sweep
from zoo.files import atomic


@dataclass(frozen=True)
class Examples:
    """Adversarial examples of one batch.

    Attributes:
        adversarial: one for each radius and image, (eps, batch, C, H, W).
        robust: whether the network that they were made with classifies each of them correctly, bool (eps, batch).
    """

    adversarial: Tensor
    robust: Tensor


class KeptExamples:
    """Examples of one network, a file for each batch and sweep.

    Args:
        folder: of the files.
        weights_sha256: of the network.
    """

    def __init__(self, folder: Path, weights_sha256: str) -> None:
        self.folder, self._weights = folder, weights_sha256

    def get(self, sweep: Sweep, images: Tensor, labels: Tensor) -> Examples | None:
        """Return the examples of a batch, or None.

        Raises:
            UserError: their file is damaged.
        """
        path = self._path(sweep, images, labels)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                adversarial, robust = torch.from_numpy(arrays["adversarial"]), torch.from_numpy(arrays["robust"])
        except Exception as error:  # of the archive or the arrays' headers
            raise UserError(f"{path} cannot be read ({first_line(error)}): delete it to attack anew") from None
        return Examples(adversarial.to(images.device), robust)

    def put(self, sweep: Sweep, images: Tensor, labels: Tensor, found: Examples) -> None:
        """Keep the examples of a batch."""
        with atomic(self._path(sweep, images, labels)) as temporary, temporary.open("wb") as file:
            np.savez(file, adversarial=found.adversarial.cpu().numpy(), robust=found.robust.cpu().numpy())

    def _path(self, sweep: Sweep, images: Tensor, labels: Tensor) -> Path:
        owner = identity(f"{self._weights} {sweep!r}", images, labels)
        return self.folder / f"{sweep.name.replace(' ', '-')}-{owner[:16]}.npz"
