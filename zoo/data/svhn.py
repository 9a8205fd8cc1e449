"""Street View House Numbers."""

import torch

from zoo.data._augment import Augmentation
from zoo.data._base import DataSet, TensorSource
from zoo.data._torchvision import open_torchvision


class Svhn(DataSet):
    """99,289 house-number digits of 32 x 32 colour pixels (Netzer et al. 2011), cropped form."""

    mean = (0.4377, 0.4438, 0.4728)
    std = (0.1980, 0.2010, 0.1970)
    class_names = tuple("0123456789")
    image_shape = (3, 32, 32)
    augmentation = Augmentation(shift=2)

    def source(self, train: bool) -> TensorSource:
        """Return the 73,257 training or 26,032 test images."""
        data = open_torchvision("svhn", "SVHN", self.root, self.download, split="train" if train else "test")
        return TensorSource(torch.from_numpy(data.data), torch.from_numpy(data.labels).long())
