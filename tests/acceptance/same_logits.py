"""Check that a picture gets the same logits however the camera was held: in training, graph and server.

Usage: python same_logits.py RUN PAIR SERVE.py PAGE.md

PAIR holds the trees turned/ and upright/, and RUN has been exported to RUN/model-uint8.onnx.
"""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import torch

from zoo.data import open_data
from zoo.runs.run import Run


def main(run: Path, pair: Path, server: Path, page: Path) -> None:
    model, side = Run(run).model(), Run(run).card.image_shape[1]
    for train in (True, False):
        found = []
        for name in ("turned", "upright"):
            source = open_data("imagefolder", data_dir=pair / name, image_size=side).source(train=train)
            with torch.no_grad():
                found.append(model(source.fetch(torch.arange(len(source.labels))).float() / 255).numpy())
        told("training" if train else "evaluation", *found)
    lines = re.search(r"```python\n(import json.*?)```", page.read_text(), flags=re.DOTALL)[1]
    lines = lines.replace('"model-uint8.onnx"', f'"{run}/model-uint8.onnx"')
    answers = {"graph, by the page's lines": lambda path: by_lines(lines, path)}
    process = subprocess.Popen(
        [sys.executable, server, f"{run}/model-uint8.onnx", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    url = process.stdout.readline().split()[-1]
    answers["server"] = lambda path: posted(url, path)
    try:
        for where, answer in answers.items():
            turned, upright = (
                [answer(path) for path in sorted((pair / name / "test").rglob("0.*"))] for name in ("turned", "upright")
            )
            told(where, np.array(turned), np.array(upright))
    finally:
        process.terminate()
        process.wait()


def by_lines(lines: str, path: Path) -> list[float]:
    scope: dict = {"print": lambda *_: None}
    exec(lines.replace('"photo.jpg"', repr(str(path))), scope)
    return scope["logits"][0].tolist()


def posted(url: str, path: Path) -> list[float]:
    with urllib.request.urlopen(urllib.request.Request(url, data=path.read_bytes()), timeout=20) as answer:
        return list(json.load(answer)["probabilities"].values())


def told(where: str, turned: np.ndarray, upright: np.ndarray) -> None:
    print(f"{where}: largest difference {np.abs(turned - upright).max():g} of {np.abs(upright).max():.3g}")
    if not np.array_equal(turned, upright):
        sys.exit(f"FAILED: turned and upright copies differ in {where}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
