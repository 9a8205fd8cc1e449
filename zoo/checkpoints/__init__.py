"""Weights that others saved: read without running anything in them, and fitted to a timm model by name and shape."""

from zoo.checkpoints.checkpoint import Checkpoint, is_checkpoint, read_checkpoint
from zoo.checkpoints.loading import Loaded, load_checkpoint_, sizes_in

__all__ = ["Checkpoint", "Loaded", "is_checkpoint", "load_checkpoint_", "read_checkpoint", "sizes_in"]
