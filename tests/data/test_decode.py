"""Pixels come out as a person sees them, whatever camera, editor or web page wrote the file."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features
from sklearn.datasets import load_sample_image

from zoo.data._decode import TURNS, decode, rgb
from zoo.data._inspect import inspect

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(np.array(load_sample_image("flower.jpg"))).resize((96, 64))


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file


def tag(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone_in_every_format(orientation: int, kind: str, photograph: Image.Image) -> None:
    lossless = {"lossless": True} if kind == "WEBP" else {}
    stored = saved(photograph, kind, exif=tag(orientation), **lossless)
    plain = Image.open(saved(photograph, kind, **lossless)).convert("RGB")  # the pixels of a JPEG as it is stored
    expected = plain.transpose(TURNS[orientation]) if orientation > 1 else plain
    assert np.array_equal(rgb(stored), expected)
    assert np.array_equal(ImageOps.exif_transpose(Image.open(stored)).convert("RGB"), expected)


def test_damaged_exif_data_leave_the_pixels(photograph: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photograph.save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert np.array_equal(rgb(path), Image.open(path).convert("RGB"))
    assert not inspect(path).problem


def test_the_size_that_is_told_is_that_of_the_upright_image(photograph: Image.Image, tmp_path: Path) -> None:
    photograph.save(tmp_path / "a.jpg", exif=tag(6))
    assert (inspect(tmp_path / "a.jpg").width, inspect(tmp_path / "a.jpg").height) == (64, 96)


def test_cmyk_keeps_its_colours(photograph: Image.Image) -> None:
    """Printers' JPEGs, with Adobe's marker and without."""
    seen = np.asarray(rgb(saved(photograph.convert("CMYK"), "JPEG", quality=98)), dtype=int)
    assert np.abs(seen - np.asarray(photograph, dtype=int)).mean() < 4
    seen = np.asarray(rgb(saved(photograph.convert("CMYK"), "TIFF")), dtype=int)
    assert np.abs(seen - np.asarray(photograph, dtype=int)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_keeps_its_shades(kind: str) -> None:
    shades = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    seen = np.asarray(rgb(saved(Image.fromarray(shades), kind)))
    assert np.array_equal(seen, np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparent_parts_are_white(alpha: int) -> None:
    colour = np.array([200, 40, 90])
    expected = np.round(alpha / 255 * colour + (255 - alpha) / 255 * 255)
    image = Image.new("RGB", (8, 8), tuple(colour))
    palette = image.quantize(2)
    with_alpha = image.copy()
    with_alpha.putalpha(alpha)
    files = [saved(with_alpha, "PNG"), saved(palette, "PNG", transparency=bytes([alpha] * 256))]
    for file in (*files, saved(with_alpha, "WEBP", lossless=True)) if alpha else files:
        assert np.abs(np.asarray(rgb(file), dtype=int)[0, 0] - expected).max() <= 1


def test_one_colour_that_stands_for_nothing_is_white() -> None:
    image = Image.new("RGB", (8, 8), (0, 0, 0))
    image.paste((9, 9, 9), (0, 0, 4, 8))
    seen = np.asarray(rgb(saved(image, "PNG", transparency=(0, 0, 0))))
    assert seen[0, 0].tolist() == [9, 9, 9]
    assert seen[0, 7].tolist() == [255, 255, 255]


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert np.asarray(rgb(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])))[0, 0].tolist() == [
        255,
        0,
        0,
    ]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_of_phones_are_turned_once(orientation: int, photograph: Image.Image, tmp_path: Path) -> None:
    """HEIC turns by a property of its own, which its decoder follows, and repeats it in EXIF."""
    heif = pytest.importorskip("pillow_heif")
    file = heif.from_pillow(photograph)
    file.info["exif"] = tag(orientation).tobytes()
    file.save(tmp_path / "a.heic", quality=95)
    seen = np.asarray(rgb(tmp_path / "a.heic"), dtype=int)
    expected = photograph.transpose(TURNS[orientation]) if orientation > 1 else photograph
    assert seen.shape == np.asarray(expected).shape
    assert np.abs(seen - np.asarray(expected, dtype=int)).mean() < 4


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_avif_is_turned_once(orientation: int, photograph: Image.Image) -> None:
    stored, plain = saved(photograph, "AVIF", exif=tag(orientation)), saved(photograph, "AVIF")
    assert np.array_equal(rgb(stored), Image.open(plain).convert("RGB").transpose(TURNS[orientation]))


def test_the_central_square_is_that_of_the_upright_image(photograph: Image.Image, tmp_path: Path) -> None:
    photograph.save(tmp_path / "a.png")
    photograph.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=tag(6))
    assert torch.equal(decode(tmp_path / "a.png", 32), decode(tmp_path / "b.png", 32))
