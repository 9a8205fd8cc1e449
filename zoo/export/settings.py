"""The user's settings of an exported file: target, precision, and the accuracy it may lose."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from zoo.errors import UserError
from zoo.export.target import TargetName
from zoo.latency.session import default_threads
from zoo.runtimes import DEFAULT

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export. Data are needed only for int8 and fp16."""

    target: TargetName = "cpu"
    """cpu or cuda of this machine: layers are timed in each of their forms; generic: their times are estimated."""
    precision: Precision = "fp32"
    """fp32; fp16 for the target cuda; int8: static quantisation, calibrated on training images."""
    threads: int = field(default_factory=default_threads)
    """Threads of one operator on the CPU that the file will run with."""
    time_limit: float = 120.0
    """Seconds that timing may take; forms that are not timed by then are chosen by the cost model."""
    max_drop: float = 1.0
    """Points of clean or adversarial accuracy that less precision may cost; more fails the export."""
    calibration: int = 256
    """Training images that the ranges of int8 are taken from."""
    n: int = 500
    """Test images that the accuracy before and after is measured on, the same share of every class."""
    seed: int = 0
    """Seed of the choice of images."""
    data_dir: Path | None = None
    """Where the data sets are; default: where the run's training found its own."""
    download: bool = False
    """Download a data set that is not there."""
    runtime: str = DEFAULT
    """Runtime that the file is for: layers are timed in it, and its own file is written beside the ONNX file."""

    def __post_init__(self) -> None:
        if self.precision == "fp16" and self.target != "cuda":
            raise UserError(
                f"fp16 is slower than fp32 on the target {self.target!r}: ONNX Runtime computes it on GPUs only; "
                "choose --target cuda, or --precision int8"
            )
        for name in ("threads", "calibration", "n"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.time_limit >= 0:
            raise UserError(f"time-limit must be 0 seconds or more, not {self.time_limit:g}")
        if not 0 <= self.max_drop <= 100:
            raise UserError(f"max-drop is in points of accuracy, 0 to 100: got {self.max_drop}")
