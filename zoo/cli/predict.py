"""Classify images with a run, a published model or an exported file: the likeliest classes of each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli._parser import Parser
from zoo.cli._run import add_hub
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.serving.predict import Classifier, Prediction

TASK = "deploy"


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, classify, and print a table or JSON."""
    add = parser.add_argument
    add("model", type=str, metavar="RUN|FILE.onnx", help="A run, a published model's name, or an exported file.")
    add("images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="Images, and folders of them at any depth.")
    add("--top", type=int, default=5, help="The likeliest classes that are shown, at most.")
    add("--json", type=bool, nargs="?", const=True, default=False, help="JSON: a list of objects, one per image.")
    add_hub(parser)
    options = parser.parse_args(argv)
    if options.top < 1:
        raise UserError(f"--top must be at least 1, not {options.top}")

    from rich.progress import Progress

    from zoo.screen import progress_console, shows_bars
    from zoo.serving.predict import check_all_read, image_paths, predict

    paths = image_paths(options.images)
    model = open_classifier(options.model, options.hub)
    unread: dict[Path, str] = {}
    with Progress(console=progress_console(), transient=True, disable=not shows_bars()) as bar:
        task = bar.add_task("classifying", total=len(paths))
        found = list(predict(model, paths, options.top, unread, lambda: bar.advance(task)))
    if options.json:
        print(json.dumps([_plain(prediction) for prediction in found], indent=2, ensure_ascii=False))
    elif found:
        _print_table(found)
    check_all_read(unread)


def open_classifier(target: str, hub: str | None) -> "Classifier":
    """Open a run, a published model or an exported file; only the first two need PyTorch."""
    from zoo.files import user_path
    from zoo.serving.predict import Classifier

    path = user_path(target)
    if path.is_file() or path.suffix == ".onnx":
        return Classifier.of_file(path)

    import torch

    from zoo.hub.runs import look_at

    run = look_at(target, hub)
    model = run.model()

    def logits(images: Any) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()

    return Classifier(logits, run.card.class_names, run.card.image_shape)


def _plain(prediction: "Prediction") -> dict[str, Any]:
    classes = [{"class": name, "probability": round(share, 6)} for name, share in prediction.classes]
    return {"file": str(prediction.file), "predictions": classes}


def _print_table(found: "Sequence[Prediction]") -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    table.add_column("file", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for prediction in found:
        shown = escape(str(prediction.file))
        for name, share in prediction.classes:
            table.add_row(shown, escape(name), f"{share:.1%}")
            shown = ""
    Console(highlight=False).print(table)
