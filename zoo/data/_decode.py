"""Pixels of an image file: upright, 8 bits, three channels, the central square at one size.

The server does the same (`zoo.serving.serve`), in a file that must run without this package; a test compares the two.
"""

from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data._image_files import reads_heic
from zoo.errors import UserError, first_line

ORIENTATION = 0x0112
"""EXIF's tag for how the camera was held."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(file: Path | IO[bytes], size: int, name: str = "") -> Tensor:
    """Return an image's central square at ``size`` pixels a side: (3, size, size), uint8.

    Args:
        file: of the image.
        size: of the result.
        name: of the file, for the message; by default its path.

    Raises:
        UserError: the file is no image, is damaged, or is so large that Pillow takes it for an attack.
    """
    try:
        return square(rgb(file), size)
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        reason = first_line(error)
        raise UserError(f"{name or file} cannot be read as an image ({reason}): repair or remove it") from None


def rgb(file: Path | IO[bytes]) -> Image.Image:
    """Return the image in a file as a person sees it: upright, in RGB, on white where it is transparent."""
    reads_heic()
    with Image.open(file) as image:
        return on_white(eight_bits(upright(image)))


def square(image: Image.Image, size: int) -> Tensor:
    """Return the central square of an RGB image at ``size`` pixels a side: (3, size, size), uint8."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says; one whose EXIF data cannot be read stays as it is.

    OpenCV and browsers do this by themselves, Pillow does not (except for TIFF).
    """
    image.load()  # turns TIFF, and finds EXIF data behind the pixels of a PNG
    return image.transpose(TURNS[turn]) if (turn := orientation(image)) in TURNS else image


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8; 1 if it says nothing that can be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data raise whatever their reader stumbles over; the pixels are intact
        return 1


def eight_bits(image: Image.Image) -> Image.Image:
    """Return grey pixels of 16 bits at 8, which Pillow's own conversion would cut off at white, and others as they are.

    Raises:
        OSError: the pixels are of 32 bits: which value is white is not known.
    """
    if image.mode in ("I", "F"):
        raise OSError("pixels of 32 bits, whose white is not known: convert them to 8 or 16 bits")
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """Return an image in RGB; transparent parts, whose colour nobody sees, are white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    white.alpha_composite(seen)
    return white.convert("RGB")
