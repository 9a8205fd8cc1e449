"""CIFAR-10."""

import torch

from zoo.data._augment import Augmentation
from zoo.data._base import DataSet, TensorSource
from zoo.data._torchvision import open_torchvision


class Cifar10(DataSet):
    """60,000 photographs of 32 x 32 pixels in 10 classes (Krizhevsky 2009)."""

    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    image_shape = (3, 32, 32)
    augmentation = Augmentation(shift=4, flip=True)

    def source(self, train: bool) -> TensorSource:
        """Return the 50,000 training or 10,000 test images."""
        data = open_torchvision("cifar10", "CIFAR10", self.root, self.download, train=train)
        return TensorSource(torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets))
