"""Write the folder of a page: its files, the networks, the samples, and what runs them in a browser."""

import base64
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo._version import __version__
from zoo.demo.networks import Network, dense_networks, described, export_networks, open_runs
from zoo.demo.samples import ATTACK_NAME, LEVELS, Samples, Slide, choose_samples, slide
from zoo.errors import UserError
from zoo.files import atomic_folder, user_path
from zoo.report import STYLE
from zoo.runs.card import Card
from zoo.runtimes import ONNXRUNTIME_WEB, onnxruntime_web
from zoo.serving.preprocessing import write_preprocessing

SCHEMA = 1
"""Version of the JSON file's schema."""
FIGURES = "demo.json"
PREPROCESSING = "preprocessing.onnx"
PAGE = Path(__file__).parent / "page"
SERVER = Path(__file__).parent / "serve.py"
LEAST, MOST = 16, 127
"""The radius of networks with a small one of their own, and the largest: changes are stored in signed bytes."""


@dataclass(frozen=True)
class Demo:
    """Options of a page."""

    out: Path = Path("demo")
    """Folder to write; an older page there is replaced."""
    samples: int = 10
    """Test images on the page, at most; 0: none, and no slider."""
    radius: int | None = None
    """Linf radius at the slider's end, in levels of an 8-bit pixel (default: twice the networks' own, at least 16)."""
    dense: bool = True
    """Add the uncompressed network of each architecture, with random weights, to be timed in the browser."""
    ort_web: Path | None = None
    """npm's package onnxruntime-web, as .tgz or unpacked; default: zoo's cache, or fetched by npm."""
    data_dir: Path | None = None
    """Where the data set's files are; default: where a training found them."""
    download: bool = False
    """Fetch the data set's files if they are missing."""

    def __post_init__(self) -> None:
        if self.samples < 0 or (self.radius is not None and not 1 <= self.radius <= MOST):
            raise UserError(f"--samples must not be negative, and --radius must be 1 to {MOST}")


@dataclass(frozen=True)
class Written:
    """The folder of a page, and its size in bytes."""

    folder: Path
    bytes: int


def write_demo(
    targets: Sequence[str], how: Demo, hub: str | None = None, say: Callable[[str], None] = lambda text: None
) -> Written:
    """Write a page on which a browser runs networks.

    Args:
        targets: RUN folders or names of published models, of one task.
        how: see `Demo`.
        hub: addresses of hubs, see `zoo.hub.search.hubs`.
        say: called with a line on each stage.

    Raises:
        UserError: a run is none, runs are of different tasks, data or onnxruntime-web are not at hand, or ``out`` is
            something other than a page.
    """
    out = user_path(how.out)
    if out.exists() and not (out / FIGURES).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} already exists and is no page of zoo demo: choose another folder with --out")
    runs = open_runs(targets, hub)
    radius = how.radius or _twice_their_own([run.card for run in runs.values()])
    say("looking for onnxruntime-web")
    browser = onnxruntime_web(how.ort_web)
    with atomic_folder(out) as folder:
        say("exporting")
        networks = export_networks(runs, folder)
        card = networks[0].run.card
        write_preprocessing(folder / PREPROCESSING, card.image_shape)
        samples = choose_samples(networks, how.samples, how.data_dir, how.download) if how.samples else None
        slides = _slides(networks, samples, radius, say) if samples else []
        figures = {
            "schema_version": SCHEMA,
            "zoo": __version__,
            "onnxruntime_web": ONNXRUNTIME_WEB,
            "preprocessing": PREPROCESSING,
            **_task(card),
            "networks": [described(network) for network in networks],
            "dense": dense_networks(networks, folder) if how.dense else [],
            "radius": radius,
            "attack": ATTACK_NAME,
            "drawn": samples.drawn if samples else 0,
            "samples": _samples(samples, slides),
        }
        (folder / FIGURES).write_text(json.dumps(figures, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.copytree(PAGE, folder, dirs_exist_ok=True)
        shutil.copytree(browser, folder / "onnxruntime-web")
        for file in (STYLE, SERVER):
            shutil.copyfile(file, folder / file.name)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Written(out, size)


def _slides(networks: Sequence[Network], samples: Samples, radius: int, say: Callable[[str], None]) -> list[Slide]:
    slides = []
    for network in networks:
        say(f"attacking {network.name}")
        slides.append(slide(network, samples, radius))
    return slides


def _twice_their_own(cards: Sequence[Card]) -> int:
    """Return twice the largest radius that the networks are measured at, in whole levels."""
    own = [card.threat_model.eps for card in cards if card.threat_model and card.threat_model.norm == "Linf"]
    return min(MOST, max([LEAST, *(math.ceil(2 * eps * LEVELS - 1e-6) for eps in own)]))


def _task(card: Card) -> dict[str, Any]:
    return {"data": card.data, "classes": card.class_names, "image_shape": card.image_shape}


def _samples(samples: Samples | None, slides: Sequence[Slide]) -> list[dict[str, Any]]:
    """Return each picture with its directions, one for each network."""
    if samples is None:
        return []
    return [
        {
            "label": int(samples.labels[i]),
            "pixels": _bytes(samples.images[i]),
            "slides": [
                {
                    "delta": _bytes(one.delta[i]),
                    "classes": one.classes[i].tolist(),
                    "confidence": [round(value, 4) for value in one.confidence[i].tolist()],
                }
                for one in slides
            ],
        }
        for i in range(len(samples.labels))
    ]


def _bytes(values: Tensor) -> str:
    """Return the bytes of a picture or a change (C, H, W) as rows of pixels, as a browser has them, in base 64."""
    return base64.b64encode(values.permute(1, 2, 0).contiguous().numpy().tobytes()).decode()
