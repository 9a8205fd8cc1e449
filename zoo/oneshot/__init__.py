"""Compress a checkpoint at once, without training, and leave a RUN folder behind."""

from zoo.oneshot.compress import Outcome, compress_checkpoint
from zoo.oneshot.config import CompressConfig

__all__ = ["CompressConfig", "Outcome", "compress_checkpoint"]
