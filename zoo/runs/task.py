"""What a network is for: its architecture, its images and its classes."""

from dataclasses import dataclass

from torch import nn

from zoo.backbone import Stem, create_backbone


@dataclass(frozen=True)
class Task:
    """What a card says of a network before anything is compressed.

    Attributes:
        arch: timm's name of the backbone.
        stem: see `zoo.backbone.create_backbone`.
        data: name of the data set, ``""`` where there is none.
        image_shape: (channels, height, width).
        mean, std: per channel, of pixels in [0, 1].
        class_names: in the order of the logits.
    """

    arch: str
    stem: Stem
    data: str
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]

    def backbone(self) -> nn.Module:
        """Return the dense backbone, with random weights."""
        return create_backbone(self.arch, len(self.class_names), self.image_shape, stem=self.stem)
