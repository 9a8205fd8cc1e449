"""Images a second from files: Pillow alone, zoo's threads, and torchvision's loader with the same number of workers.

Usage: python tests/benchmarks/decoding.py [--n 300] [--side 500] [--size 224] [--workers 2] [--rounds 5]
       [--augment light]

JPEGs of about SIDE pixels are cut from scikit-learn's two photographs, and read in turns, in one process:

- Pillow: open, turn upright, to RGB, central square, resize; by one thread, times the workers: the decoder's own speed;
- zoo: batches of a split that stays in files, augmented, as a training gets them;
- the same while the caller computes between batches, as a training does: what is decoded meanwhile costs no time;
- torchvision: ImageFolder with its own transforms in a DataLoader with as many worker processes.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms import v2

from zoo.data import DataSet, TrainBatches, augmentation, open_data
from zoo.data._decode import decode
from zoo.data._encoded import Encoded, EncodedSource

BATCH = 32


def write_images(folder: Path, n: int, side: int) -> None:
    """Write n JPEGs of two classes, of various sizes around the side."""
    draws = np.random.default_rng(0)
    for label, image in enumerate(load_sample_images().images):
        target = folder / "train" / f"class{label}"
        target.mkdir(parents=True)
        for i in range(n // 2):
            h, w = (int(draws.integers(side // 2, side * 3 // 2)) for _ in range(2))
            left, top = int(draws.integers(0, 100)), int(draws.integers(0, 60))
            part = Image.fromarray(image).crop((left, top, 640, 427)).resize((w, h))
            part.save(target / f"{i}.jpg", quality=90)


def pillow(paths: list[Path], size: int) -> None:
    for path in paths:
        decode(path, size)


def zoo_batches(source: EncodedSource, strength: str, data: DataSet, work: float = 0.0) -> None:
    batches = TrainBatches(source, torch.arange(len(source.labels)), BATCH, augmentation(strength, data), 0, lambda: 0)
    for _ in batches:
        time.sleep(work)


def torchvision_loader(folder: Path, size: int, workers: int) -> Callable[[], None]:
    steps = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    found = torchvision.datasets.ImageFolder(str(folder / "train"), steps)
    loader = torch.utils.data.DataLoader(
        found, BATCH, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True
    )
    for _ in loader:  # starts the workers
        pass

    def read() -> None:
        for _ in loader:
            pass

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("n", 300), ("side", 500), ("size", 224), ("workers", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--augment", default="light", choices=["none", "light", "standard"])
    o = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, o.n, o.side)
        data = open_data("imagefolder(test_fraction=0.01)", data_dir=folder, image_size=o.size)
        paths = sorted((folder / "train").rglob("*.jpg"))
        images = Encoded.files(paths, [0] * len(paths))
        source = EncodedSource(images, torch.tensor(images.labels), o.size, ThreadPoolExecutor(o.workers))
        few = list(paths[: max(BATCH, o.n // o.workers)])
        # One thread, times the workers: the decoder's own speed, without anything that could hold it up.
        alone = {"Pillow alone x workers": (lambda: pillow(few, o.size), len(few) * o.workers)}
        whole = len(paths) // BATCH * BATCH
        ways = alone | {
            "zoo, not augmented": (lambda: zoo_batches(source, "none", data), whole),
            f"zoo, augment {o.augment}": (lambda: zoo_batches(source, o.augment, data), whole),
            "torchvision, workers": (torchvision_loader(folder, o.size, o.workers), whole),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(o.rounds):  # in turns, so that each sees the same machine
            for way, (read, _) in ways.items():
                start = time.perf_counter()
                read()
                seconds[way].append(time.perf_counter() - start)
        rates = {way: n / median(seconds[way]) for way, (_, n) in ways.items()}
        own = rates["Pillow alone x workers"]
        work = BATCH / rates["zoo, not augmented"]
        start = time.perf_counter()
        zoo_batches(source, "none", data, work)
        busy = time.perf_counter() - start
        print(f"{len(paths)} JPEGs of about {o.side} pixels at {o.size}, {o.workers} workers, median of {o.rounds}")
        for way, rate in rates.items():
            print(f"{way:26} {rate:7.1f} images/s   {rate / own:.2f}")
        share = busy / (work * (whole // BATCH))
        print(f"with as long a step between batches: {share:.2f} of the steps' own time (2 would be one after another)")


if __name__ == "__main__":
    main()
