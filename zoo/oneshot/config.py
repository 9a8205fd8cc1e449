"""What is asked of a compression without training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.backbone import Stem
from zoo.data import with_options
from zoo.errors import UserError
from zoo.runs.config import check_seed
from zoo.runs.normalization import given_normalization


@dataclass
class CompressConfig:
    """A checkpoint, a budget, and what may be known beside them."""

    weights: Path | None = None
    """What to compress: a checkpoint (.pth, .pt, .ckpt, .safetensors or a folder with config.json), a RUN or a
    published name, factors multiplied out; see docs/own_checkpoint.md."""
    pretrained: bool = False
    """Compress timm's pretrained weights instead (needs the network)."""
    compression: float | None = None
    """Share of the parameters to remove, such as 0.5 (the default is 0.8)."""
    rank_fraction: float | None = None
    """Instead of a compression: rank over full rank, the same for every layer."""
    macs_reduction: float | None = None
    """With a compression: share of the multiply-accumulates to remove."""
    data: str | None = None
    """Data set: factors are fitted to its training images, BatchNorm's statistics estimated on them, and accuracy is
    measured before and after."""
    data_dir: Path | None = None
    """Folder of the data set's files."""
    download: bool = False
    """Fetch missing data into the data folder."""
    image_size: int | None = None
    """Side of the images in pixels; default: the data's, the checkpoint's, or that of timm's pretrained weights."""
    test_fraction: float | None = None
    """Share of an image folder's images to hold out and measure on, for DIR/CLASS/* or a train split alone."""
    skip_corrupt: bool = False
    """Leave out files of an image folder that cannot be read as images; by default they end the command, all named."""
    stem: Stem = "auto"
    """auto: images of 64 pixels and fewer get the architecture's small-image form; original: never."""
    mean: str | None = None
    """Mean per channel in the checkpoint's training, such as 0.485,0.456,0.406; default: its own, or the data's."""
    std: str | None = None
    """Standard deviation per channel, likewise."""
    n: int = 1000
    """Test images of the accuracy before and after, drawn evenly over the classes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    seed: int = 0
    """Seed of the choice of images."""
    out: Path | None = None
    """Folder of the run (default: runs/ARCH-METHOD-oneshot)."""
    overwrite: bool = False
    """Replace a run that is already there."""

    def __post_init__(self) -> None:
        if (self.weights is None) == (not self.pretrained):
            raise UserError("say what to compress: --weights with a checkpoint, a RUN or a name, or --pretrained true")
        if self.n < 1:
            raise UserError(f"n must be at least 1, got {self.n}")
        if self.data is None and self.data_dir is not None:
            raise UserError(f"--data-dir {self.data_dir}: say of which data set with --data, such as --data cifar10")
        check_seed(self.seed)
        if self.data is not None:
            self.data = with_options(self.data, test_fraction=self.test_fraction, skip_corrupt=self.skip_corrupt)
            self.test_fraction, self.skip_corrupt = None, False
        given_normalization(self.mean, self.std)
