"""Fashion-MNIST."""

from zoo.data._augment import Augmentation
from zoo.data._base import DataSet, TensorSource
from zoo.data._torchvision import open_torchvision


class FashionMnist(DataSet):
    """70,000 pictures of clothes, 28 x 28 grey pixels, in 10 classes (Xiao et al. 2017)."""

    mean = (0.2860,)
    std = (0.3530,)
    class_names = (
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    image_shape = (1, 28, 28)
    augmentation = Augmentation(shift=2, flip=True)

    def source(self, train: bool) -> TensorSource:
        """Return the 60,000 training or 10,000 test images."""
        data = open_torchvision("fashion_mnist", "FashionMNIST", self.root, self.download, train=train)
        return TensorSource(data.data.unsqueeze(1), data.targets.long())
