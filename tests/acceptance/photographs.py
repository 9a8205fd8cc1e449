"""Write a small set of photographs of four classes, and copies of it with what cameras, editors and web pages leave.

Usage: python photographs.py DIR      needs scikit-image, and pillow-heif for HEIC
"""

import io
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import skimage
from PIL import Image
from sklearn.datasets import load_sample_image

COPIES = 24
ORIENTATION = 0x0112
BACK = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""Turns that a viewer undoes when it follows the tag."""
FORTH = {
    Image.Transpose.ROTATE_180: Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}


def photographs() -> dict[str, np.ndarray]:
    """The reference images of the four classes."""
    return {
        "cat": skimage.data.chelsea(),
        "coffee": skimage.data.coffee(),
        "flower": np.array(load_sample_image("flower.jpg")),
        "rocket": skimage.data.rocket(),
    }


def cuts(image: np.ndarray, n: int) -> list[Image.Image]:
    """Parts of an image, drawn at random, of several sizes and shapes."""
    draws, found = np.random.default_rng(0), []
    for _ in range(n):
        h, w = (int(draws.integers(100, min(image.shape[:2]) + 1)) for _ in range(2))
        top, left = (
            int(draws.integers(0, whole - part + 1)) for whole, part in zip(image.shape[:2], (h, w), strict=True)
        )
        found.append(Image.fromarray(image[top : top + h, left : left + w]))
    return found


def tagged(image: Image.Image, orientation: int, path: Path) -> None:
    """Save an image as a camera held sideways does: turned, with the tag that turns it back."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.transpose(BACK[orientation]).save(path, exif=exif, quality=95)


def write(root: Path) -> None:
    for name, image in photographs().items():
        parts = cuts(image, COPIES)
        for i, part in enumerate(parts):
            for tree, split in (("flat", ""), ("tree", ("train", "train", "train", "val", "test")[i % 5])):
                path = root / tree / split / name / f"{i:02}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                part.save(path, quality=95)
        quirks(root / "quirks" / name, parts)
    for split in ("train", "test"):
        shutil.copytree(root / "tree" / split, root / "two" / split)
    shutil.copytree(root / "tree/train", root / "alone/train")
    pair(root / "pair", Image.fromarray(photographs()["cat"]))
    bad(root)
    shards(root)
    table(root)


def quirks(folder: Path, parts: list[Image.Image]) -> None:
    """Every kind of file that can be read."""
    folder.mkdir(parents=True)
    for orientation, part in zip(BACK, parts, strict=False):
        tagged(part, orientation, folder / f"turned{orientation}.jpg")
    parts[3].convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    grey = np.asarray(parts[4].convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(folder / "grey16.png")
    Image.fromarray(grey).save(folder / "grey16.tif")
    palette = parts[5].quantize(64)
    palette.save(folder / "palette.png", transparency=bytes([0] * 8 + [128] * 8 + [255] * 48))
    rgba = parts[6].copy()
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    rgba.save(folder / "rgba.png")
    rgba.save(folder / "rgba.webp", lossless=True)
    parts[7].convert("LA").save(folder / "grey_alpha.png")
    parts[8].convert("1").save(folder / "black_and_white.png")
    parts[9].save(folder / "animated.gif", save_all=True, append_images=parts[10:12])
    parts[12].save(folder / "progressive.jpg", progressive=True)
    parts[13].save(folder / "lossy.webp")
    parts[14].save(folder / "IMG_1.JPEG")
    (folder / "notes.txt").write_text("no image")
    (folder / "clip.mov").write_bytes(b"no image")
    try:
        import pillow_heif
    except ImportError:
        print("pillow-heif is not installed: no HEIC")
    else:
        phone = pillow_heif.from_pillow(parts[15].transpose(BACK[6]))
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        phone.info["exif"] = exif.tobytes()  # writes the property that turns the picture, too
        phone.save(folder / "IMG_2.HEIC", quality=90)
    parts[16].save(folder / "IMG_3.avif", quality=90)


def pair(folder: Path, image: Image.Image) -> None:
    """Two trees of one picture, a class for each way of holding the camera: as stored, and the same pixels upright."""
    for orientation, back in BACK.items():
        for split in ("train", "test"):
            turned, upright = (folder / name / split / f"held{orientation}" for name in ("turned", "upright"))
            turned.mkdir(parents=True)
            upright.mkdir(parents=True)
            tagged(image, orientation, turned / "0.jpg")
            with Image.open(turned / "0.jpg") as stored:
                stored.transpose(FORTH[back]).save(upright / "0.png")


def bad(root: Path) -> None:
    """Trees with what must be told in one line."""
    for name in ("corrupt", "empty", "case", "small", "large", "unknown"):
        shutil.copytree(root / "two", root / name)
    for kind, path in (("cut.jpg", "train/cat"), ("page.jpg", "train/rocket"), ("empty.png", "test/flower")):
        target = root / "corrupt" / path / kind
        whole = (root / "two/train/cat/00.jpg").read_bytes()
        target.write_bytes({"cut.jpg": whole[: len(whole) // 2], "page.jpg": b"<html>", "empty.png": b""}[kind])
    for name in ("cup", "dog"):
        (root / "empty/train" / name).mkdir()
    shutil.copytree(root / "case/train/cat", root / "case/train/Cat")
    (root / "unknown/test/coffee").rename(root / "unknown/test/Coffee")
    Image.new("RGB", (1, 1)).save(root / "small/train/cat/pixel.gif")
    Image.new("RGB", (10_000, 10_000), "orange").save(root / "large/train/cat/poster.jpg")
    Image.new("1", (20_000, 10_000)).save(root / "large/train/cat/scan.png")


def shards(root: Path) -> None:
    """Tar shards in webdataset's convention, and copies of which two end early."""
    for i, split in enumerate(("train-000", "train-001", "test-000")):
        target = root / "shards" / f"{split}.tar"
        target.parent.mkdir(exist_ok=True)
        with tarfile.open(target, "w") as tar:
            for label, name in enumerate(photographs()):
                for path in sorted((root / "flat" / name).iterdir())[6 * i : 6 * i + 6]:
                    content = str(label).encode()
                    info = tarfile.TarInfo(f"{name}-{path.stem}.cls")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                    tar.add(path, f"{name}-{path.name}")
    shutil.copytree(root / "shards", root / "cut_shards")
    for name in ("train-001", "test-000"):
        path = root / "cut_shards" / f"{name}.tar"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def table(root: Path) -> None:
    """A data set as Hugging Face's library saves it."""
    try:
        import datasets
    except ImportError:
        print("datasets is not installed: no table")
        return
    names = list(photographs())
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {
        split: [
            (path, label) for label, name in enumerate(names) for path in sorted((root / "flat" / name).iterdir())[part]
        ]
        for split, part in (("train", slice(0, 8)), ("test", slice(8, 10)))
    }
    made = {
        split: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": path.read_bytes(), "path": None} for path, _ in found],
                "label": [y for _, y in found],
            },
            features=kinds,
        )
        for split, found in rows.items()
    }
    datasets.DatasetDict(made).save_to_disk(str(root / "table"))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
