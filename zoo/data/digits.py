"""scikit-learn's handwritten digits: real, tiny, needs no files."""

import torch

from zoo.data._augment import Augmentation
from zoo.data._base import DataSet, TensorSource
from zoo.data._split import stratified

TEST_IMAGES = 360


class Digits(DataSet):
    """1,797 handwritten digits of 8 x 8 grey pixels, built into scikit-learn (360 of them the test split)."""

    mean = (0.305,)
    std = (0.376,)
    class_names = tuple("0123456789")
    image_shape = (1, 8, 8)
    augmentation = Augmentation(shift=1)
    built_in = True

    def source(self, train: bool) -> TensorSource:
        """Return the train or the test split, which is the same on every machine."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(digits.target).long()
        chosen = torch.zeros(len(labels), dtype=torch.bool)
        chosen[stratified(labels, TEST_IMAGES, seed=0)] = True
        chosen ^= train
        return TensorSource(images[chosen], labels[chosen])
