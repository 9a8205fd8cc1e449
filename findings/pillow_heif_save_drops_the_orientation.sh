#!/usr/bin/env bash
# Saving HEIC with `exif=` through Pillow drops the EXIF orientation without turning the picture.
#
# Seen with pillow-heif 1.8.1, pillow 13.0.0 on x86-64 Linux, 1 December 2026. A picture of 60 x 40 with orientation 6
# ("turn by a quarter"), as a phone held upright takes it, is saved with image.save(file, FORMAT, exif=exif). JPEG, PNG,
# WebP and AVIF keep the tag, and ImageOps.exif_transpose gives the upright 40 x 60. pillow-heif resets the tag to 1,
# because HEIC has a property of its own for this, and the picture that it reads back is not turned either: it lies on
# its side, with nothing left to tell. Nothing is raised or logged.
# What to do: turn the pixels (ImageOps.exif_transpose) before saving HEIC.
#
# Output seen (size, orientation, size once upright):
#   JPEG: (60, 40), 6, (40, 60)
#   PNG: (60, 40), 6, (40, 60)
#   WEBP: (60, 40), 6, (40, 60)
#   AVIF: (60, 40), 6, (40, 60)
#   HEIF: (60, 40), 1, (60, 40)
# Exits 0 as long as this is so, 1 when it changes. It needs Python 3.11 or newer and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q pillow-heif==1.8.1 pillow==13.0.0 numpy
"$work/env/bin/python" - <<'PYTHON'
import io
import sys

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

ORIENTATION, SIDEWAYS = 0x0112, 6
pillow_heif.register_heif_opener()
pixels = np.zeros((40, 60, 3), np.uint8)
pixels[:20] = 255
picture = Image.fromarray(pixels)
exif = picture.getexif()
exif[ORIENTATION] = SIDEWAYS


def found(file: io.BytesIO) -> tuple[object, ...]:
    image = Image.open(io.BytesIO(file.getvalue()))
    image.load()
    return image.size, image.getexif().get(ORIENTATION, 1), ImageOps.exif_transpose(image).size


seen = {}
for kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF"):
    file = io.BytesIO()
    picture.save(file, kind, exif=exif)
    seen[kind] = found(file)
for kind, (size, orientation, upright) in seen.items():
    print(f"{kind}: {size}, {orientation}, {upright}")
kept = ((60, 40), SIDEWAYS, (40, 60))
as_before = all(seen[kind] == kept for kind in ("JPEG", "PNG", "WEBP", "AVIF"))
sys.exit(0 if as_before and seen["HEIF"] == ((60, 40), 1, (60, 40)) else 1)
PYTHON
