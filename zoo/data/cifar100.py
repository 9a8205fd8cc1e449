"""CIFAR-100."""

import torch

from zoo.data._augment import Augmentation
from zoo.data._base import DataSet, TensorSource
from zoo.data._torchvision import open_torchvision


class Cifar100(DataSet):
    """60,000 photographs of 32 x 32 pixels in 100 classes (Krizhevsky 2009)."""

    mean = (0.5071, 0.4866, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    image_shape = (3, 32, 32)
    augmentation = Augmentation(shift=4, flip=True)

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names that the data set's own files give."""
        return tuple(open_torchvision("cifar100", "CIFAR100", self.root, self.download, train=False).classes)

    def source(self, train: bool) -> TensorSource:
        """Return the 50,000 training or 10,000 test images."""
        data = open_torchvision("cifar100", "CIFAR100", self.root, self.download, train=train)
        return TensorSource(torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets))
