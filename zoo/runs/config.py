"""The configuration of a training run."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.adversaries import Threat
from zoo.attacks import parse_eps
from zoo.backbone import Stem
from zoo.data import Strength, data_name, with_options
from zoo.errors import UserError
from zoo.files import user_path
from zoo.runs.normalization import given_normalization

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


def check_seed(seed: int) -> None:
    """Check that a seed is in Lightning's range, 0 to 2^32 - 1.

    Raises:
        UserError: it is out of range.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be in [0, 2^32), got {seed}")


def plain(value: Any) -> Any:
    """Return a NumPy scalar as a number of Python, which is what YAML can write, and anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


@dataclass
class TrainConfig:
    """One training run; the fields are the flags of ``zoo train`` and the keys of its YAML files."""

    arch: str = "resnet18"
    """Backbone: any name that timm knows (see `zoo list --archs`)."""
    data: str = "digits"
    """Data set (see `zoo list --data`)."""
    data_dir: Path | None = None
    """Folder of the data set's files; not needed for digits."""
    download: bool = False
    """Fetch missing data into the data folder."""
    image_size: int | None = None
    """Side of the images in pixels, for image folders (default 224)."""
    test_fraction: float | None = None
    """Share of an image folder's images to hold out and measure on, for DIR/CLASS/* or a train split alone."""
    skip_corrupt: bool = False
    """Leave out files of an image folder that cannot be read as images; by default they end the command, all named."""
    mean: str | None = None
    """Mean per channel of pixels in [0, 1], such as 0.485,0.456,0.406; default for an image folder: that of the weights
    it starts from, or ImageNet's."""
    std: str | None = None
    """Standard deviation per channel, likewise."""
    augment: Strength = "light"
    """none; light: a shift and a flip, or a random part of photographs (images above 64 pixels) and a flip; standard:
    also RandAugment and random erasing; strong: also mixup and CutMix."""
    compression: float | None = None
    """Share of the backbone's parameters to remove, such as 0.8 (the default of methods that compress)."""
    rank_fraction: float | None = None
    """Instead of a compression: rank over full rank, the same for every layer (CondLR's definition)."""
    macs_reduction: float | None = None
    """With a compression: share of the multiply-accumulates to remove, such as 0.85; early layers then keep less."""
    weights: Path | None = None
    """Start from these weights: a checkpoint (.pth, .pt, .ckpt, .safetensors or a folder with config.json), a RUN or a
    published name, factors multiplied out; see docs/own_checkpoint.md."""
    init: str | None = None
    """Start from a trained model, a RUN or a published name: its ranks and weights, a new head for other classes."""
    teacher: str | None = None
    """Learn the answers of a trained model, a RUN or a published name, instead of labels: (robust) distillation."""
    pretrained: bool = False
    """Start from timm's pretrained weights (needs the network; with images of 64 pixels and fewer --stem original)."""
    stem: Stem = "auto"
    """auto: images of 64 pixels and fewer get the architecture's small-image form; original: never."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step (per process)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: float = 0.1
    """Largest learning rate."""
    momentum: float = 0.9
    """Momentum of SGD; the first beta of AdamW."""
    weight_decay: float = 5e-4
    """Weight decay of matrices and kernels."""
    balance: bool = False
    """Start with layers before a BatchNorm scaled so that each turns by the same angle in a step (SGD)."""
    schedule: Literal["cosine", "onecycle", "multistep", "constant"] = "cosine"
    """Learning rate over the steps: warm-up then cosine to zero; one rise and fall; or x 0.3 at 7/12 and 10/12."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises from zero."""
    val_fraction: float = 0.1
    """Share of the training images kept for validation; the split is the same for every run."""
    monitor: Literal["pgd", "cr"] = "pgd"
    """Metric of the best epoch of adversarial training: validation accuracy under PGD-10 or a short CR attack."""
    n: int = 1000
    """Test images of the quick evaluation at the end, drawn evenly over the classes."""
    eps: str | float = "8/255"
    """Radius of adversarial training (Linf, pixels of [0, 1]); unused without --adversary."""
    eps_ramp: float = 0.0
    """Share of the training over which eps rises from zero, such as 0.1."""
    steps: int = 10
    """Gradient steps in each search for an adversarial image."""
    awp: float = 0.0
    """Adversarial weight perturbation: relative radius at which the loss is taken, such as 0.005 (0: none)."""
    ema: float = 0.0
    """Decay of an exponential average of the weights, with which the run ends, such as 0.999 (0: none)."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    compile: bool = False
    """Compile the network (torch.compile), once for the search and once for the step: minutes, then faster steps."""
    cuda_graph: bool = False
    """Replay the training step as a CUDA graph (one GPU); otherwise kernel launches bound the speed on small images."""
    precision: Precision = "auto"
    """Arithmetic; auto takes bf16-mixed where the hardware has fast bf16 (CUDA, CPUs with AMX or AVX512-BF16)
    and gets the network right (CPUs do not where a stride exceeds the map); 32-true elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    seed: int = 0
    """Seed of the weights, the order, the augmentation and dropout."""
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"
    """Logger besides RUN/metrics.csv."""
    out: Path | None = None
    """Folder of the run (default: runs/ARCH-METHOD-DATA)."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Further options of Lightning's Trainer."""

    def __post_init__(self) -> None:
        for each in fields(self):
            setattr(self, each.name, plain(getattr(self, each.name)))
        self.trainer = {name: plain(value) for name, value in self.trainer.items()}
        self.eps = str(self.eps)  # YAML reads 0.03 as a number
        for name in ("data_dir", "weights", "init", "teacher", "out"):
            if (path := getattr(self, name)) is not None:
                setattr(self, name, type(path)(user_path(path)))
        for name in ("epochs", "batch_size", "lr", "n"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise UserError(f"momentum must be in [0, 1), got {self.momentum}")
        if not self.weight_decay >= 0:
            raise UserError(f"weight-decay must not be negative, got {self.weight_decay}")
        if self.balance and (self.optimizer != "sgd" or not self.weight_decay):
            raise UserError(
                "--balance true is for SGD with weight decay, which says by how much a layer turns in a step"
            )
        check_seed(self.seed)
        # Options of a data set say which images are meant, so they stay with its name: on the card, in every file.
        self.data = with_options(self.data, test_fraction=self.test_fraction, skip_corrupt=self.skip_corrupt)
        self.test_fraction, self.skip_corrupt = None, False
        given_normalization(self.mean, self.std)
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"val-fraction must be in [0, 1), got {self.val_fraction}")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"warmup must be in [0, 1], got {self.warmup}")
        if not 0 <= self.eps_ramp <= 1:
            raise UserError(
                f"eps-ramp must be in [0, 1], got {self.eps_ramp:g}: it is the share of the training over which eps "
                "rises, and cannot be longer than the training"
            )
        if not 0 <= self.awp < 1:
            raise UserError(f"awp must be in [0, 1), a share of each weight's norm such as 0.005; got {self.awp}")
        if not 0 <= self.ema < 1:
            raise UserError(f"ema must be in [0, 1), the decay of the average, such as 0.999; got {self.ema}")
        _ = self.threat
        if (self.weights is not None) + self.pretrained + (self.init is not None) > 1:
            raise UserError("give only one of weights, pretrained and init: each says what training starts from")
        if self.teacher is not None and self.label_smoothing:
            raise UserError("--teacher puts its answers in the place of labels: leave --label-smoothing out, or give 0")
        if self.macs_reduction is not None and self.compression is None:
            raise UserError("--macs-reduction goes with a compression: give --compression too, such as 0.8")
        if self.init is not None and (self.compression or self.rank_fraction):
            raise UserError("--init keeps the ranks of the model it starts from: leave the compression out")

    @property
    def threat(self) -> Threat:
        """The threat that adversarial training defends against."""
        return Threat(parse_eps(str(self.eps)), self.steps, self.label_smoothing)

    def folder(self, method: str) -> Path:
        """Return the run's folder."""
        return self.out or Path("runs") / f"{self.arch.replace('.', '_')}-{method}-{data_name(self.data)}"
