"""What is asked of a merge."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.errors import UserError


@dataclass
class MergeConfig:
    """The size of the merged network, and the images that it is chosen and measured on."""

    compression: float | None = None
    """Share of the parameters to remove from the merged network; default: the ranks of the network they began as."""
    tau: float | None = None
    """Bound condition numbers by 1 + tau, so that the result is a robust_lowrank run; default: as in all the runs."""
    start: str | None = None
    """The network that the runs began as, if it has moved."""
    val_images: int = 500
    """Validation images, at most, on which rules measure accuracy, clean and under PGD-10 at the runs' radius."""
    n: int = 1000
    """Test images of the quick evaluation at the end, drawn evenly over the classes."""
    data_dir: Path | None = None
    """Folder of the data set's files; default: that of the first run's training."""
    download: bool = False
    """Fetch missing data into the data folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    out: Path | None = None
    """Folder of the merged run (default: runs/FIRST-RULE)."""
    overwrite: bool = False
    """Replace a run that is already there."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.val_images < 1:
            raise UserError("n and val-images must be at least 1")
        if self.tau is not None and not 0 <= self.tau < float("inf"):
            raise UserError(f"tau {self.tau} is invalid: the condition number's bound 1 + tau needs a tau from 0 up")
        if self.compression is not None and not 0 < self.compression < 1:
            raise UserError(f"compression {self.compression} is invalid: give a share to remove, between 0 and 1")
