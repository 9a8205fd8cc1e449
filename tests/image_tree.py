"""A small tree of images in folders of classes."""

from pathlib import Path

import numpy as np
from PIL import Image


def image_tree(root: Path, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Write three images of each of two classes in each split, and return the root."""
    for split in splits:
        for label, name in enumerate(("cat", "dog")):
            for i in range(3):
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((20 + i, 30, 3), 100 * label + i, dtype=np.uint8)).save(path)
    return root
