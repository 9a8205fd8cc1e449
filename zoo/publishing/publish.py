"""Publish a run: store its weights, measure them, and add them to a hub."""

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter, ValidationError

from zoo.bench.benchmark import Settings, bench
from zoo.bench.target import Target
from zoo.errors import UserError
from zoo.export.exporter import ONNX_FILE, export_model
from zoo.files import sha256
from zoo.hub.download import digest
from zoo.hub.index import Entry, FileEntry, FileName, Summary, Words
from zoo.hub.names import check_name, default_tag
from zoo.hub.search import open_hub
from zoo.latency.session import provider_name, resolve_device
from zoo.publishing.measure import EvaluationSplit, clean_accuracy, measured, tolerance
from zoo.publishing.network import MeasuredNetwork
from zoo.publishing.readme import readme
from zoo.publishing.rounding import Dtype, store_weights
from zoo.runs import provenance
from zoo.runs.card import Card
from zoo.runs.file_metadata import Metadata
from zoo.runs.records import StoredFile, Timing
from zoo.runs.run import CARD, Run

README = "README.md"
VERDICTS = "published.npz"
"""File of a RUN folder for the verdicts on the stored weights, on n images: published-n.npz."""
LICENCE = "Apache-2.0"
"""License of the weights, unless another is given."""


@dataclass(frozen=True)
class Publication:
    """Options of a publication."""

    tag: str | None = None
    """Name after the architecture (default: method, compression, `at` for adversarial training, data)."""
    licence: str | None = None
    """Licence of the weights, as an SPDX identifier (default: that of the card, or Apache-2.0)."""
    dtype: Dtype = "float16"
    """Number format of the stored matrices and kernels."""
    onnx: bool = True
    """Store the exported file too (fp32, so about twice the weights); it is compared with PyTorch either way."""
    latency: bool = True
    """Time the exported file beside its dense backbone."""
    data_dir: Path | None = None
    """Where the data set's files are; default: where the training found them."""
    download: bool = False
    """Fetch the data set's files if they are missing."""

    def __post_init__(self) -> None:
        if self.licence is not None:
            try:
                TypeAdapter(Words).validate_python(self.licence)
            except ValidationError:
                raise UserError(
                    "--licence takes an SPDX identifier, such as Apache-2.0, of 200 characters at most on one line"
                ) from None

    def name(self, card: Card) -> str:
        """Return the name of the model that a card describes.

        Raises:
            UserError: the tag is malformed.
        """
        robust = card.training.get("adversary", "none") != "none"
        tag = self.tag or default_tag(card.method, card.compression, card.data, robust)
        return check_name(f"{card.arch.partition('.')[0]}.{tag}")


def publish(run: Run, hub: str, options: Publication, say: Callable[[str], None] = lambda _: None) -> Card:
    """Add a run to a hub, with figures measured on the stored weights.

    Args:
        run: a finished training; RUN/published-*.npz keeps verdicts, from which an interrupted publication resumes.
            Those in RUN/outcomes.npz are taken over if they are on the very bytes that are stored.
        hub: its address.
        options: see `Publication`.
        say: called with a line on each stage.

    Returns:
        The published card.

    Raises:
        UserError: the card's figures are not those of the run's weights, the hub has the name already or cannot be
            written, or the model cannot be exported. Nothing is published then.
    """
    if "," in hub:
        raise UserError(f"{hub} are several hubs, as they are searched: publish to one of them")
    place, name = open_hub(hub), options.name(run.card)
    place.check_free(name)
    with TemporaryDirectory() as folder:
        staging = Path(folder)
        say("storing the weights")
        weights, prefixes = store_weights(run, staging, options.dtype)
        made = run.card.provenance
        made = made.model_copy(update={"command": without_places(made.command)})
        stored_card = {"weights": weights, "prefixes": prefixes, "provenance": made}
        run.card.model_copy(update=stored_card).save(staging / CARD)
        stored = MeasuredNetwork(Run(staging), run.folder / VERDICTS, evaluated_in=run.folder)
        say("measuring clean accuracy")
        split = EvaluationSplit.of(run.card, options.data_dir or run.data_dir, options.download)
        _check_figures(run, stored, split)
        say("measuring under attack, on the stored weights")
        card = measured(stored, split)
        say("exporting and comparing with PyTorch")
        metadata = Metadata.of(card)
        exported = export_model(stored.deployed, metadata, staging / ONNX_FILE)
        say("timing")
        latency = _timed(name, staging / ONNX_FILE, metadata) if options.latency else ()
        if not options.onnx:
            (staging / ONNX_FILE).unlink()
        card = card.model_copy(
            update={
                "name": name,
                "licence": options.licence or card.licence or LICENCE,
                "threat": card.threat_model,
                "latency": latency,
                "parity": {str(batch): value for batch, value in exported.parity.items()},
                "files": (_stored_file(staging / ONNX_FILE),) if options.onnx else (),
                "commands": _commands(name, bool(latency)),
            }
        )
        card.save(staging / CARD)
        (staging / README).write_text(readme(card), encoding="utf-8")
        entry = entry_of(staging)
        say("adding it to the hub")
        place.add(name, entry, lambda target: shutil.copytree(staging, target, dirs_exist_ok=True))
    return card


def _check_figures(run: Run, stored: MeasuredNetwork, split: EvaluationSplit) -> None:
    """Refuse a card whose clean accuracy is not that of its weights, or weights whose accuracy rounding has changed."""
    stated = run.card.clean
    if stated is None:
        raise UserError(f"{run.folder} has never been evaluated: `zoo evaluate {run.folder}` first")
    images = split.first(stated.n)
    own = MeasuredNetwork(run, evaluated_in=run.folder)
    if stored.card.weights.sha256 == run.card.weights.sha256:
        own = stored
    for which, what in ((own, "its weights"), (stored, f"its weights stored as {stored.card.weights.dtype}")):
        found = clean_accuracy(which, images)
        if abs(found - stated.accuracy) > tolerance(stated, len(images.labels)):
            raise UserError(
                f"the card of {run.folder} states {stated.accuracy:.2%} on {stated.n} clean images, {what} have "
                f"{found:.2%}: `zoo evaluate {run.folder}` again (with the default seed)"
            )


def _timed(name: str, file: Path, metadata: Metadata) -> tuple[Timing, ...]:
    settings = Settings(n=0)
    row = bench([Target(name, file, metadata, None)], settings, [], lambda _: None)[1]
    device = resolve_device(settings.device)
    hardware = provenance.cpu_name() if device == "cpu" else _gpu_name()
    return tuple(
        Timing(
            batch=batch,
            median_ms=time.median_ms,
            p95_ms=time.p95_ms,
            n=time.n,
            ratio_to_dense=row.latency_ratio[batch],
            provider=provider_name(device),
            threads=settings.threads,
            hardware=hardware,
        )
        for batch, time in row.latency.items()
    )


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "a CUDA device"


def _commands(name: str, timed: bool) -> dict[str, str]:
    commands = {"accuracy, conditioning": f"zoo verify {name} --n all", "parity": f"zoo export {name}"}
    return commands | ({"latency": f"zoo bench {name} --n 0"} if timed else {})


def _stored_file(path: Path) -> StoredFile:
    return StoredFile(file=path.name, sha256=sha256(path), bytes=path.stat().st_size)


def entry_of(folder: Path) -> Entry:
    """Return the index's entry for the model in a folder."""
    names: tuple[FileName, ...] = ("card.json", "model.safetensors", "model.onnx", "README.md")
    files: dict[FileName, FileEntry] = {
        name: digest((folder / name).read_bytes()) for name in names if (folder / name).is_file()
    }
    return Entry(files=files, summary=Summary.of(Card.load(folder / CARD)))


def without_places(command: str) -> str:
    """Return a training's command line without the folders of its machine."""
    words, kept = iter(shlex.split(command)), []
    for word in words:
        flag, equals, _ = word.partition("=")
        if flag in ("--out", "--resume"):
            if not equals:
                next(words, None)
        elif flag == "--data-dir":
            if not equals:
                next(words, None)
            kept += [flag, "DIR"]
        else:
            kept.append(re.sub(r"(^|=)/.*/", r"\1", word))
    return shlex.join(kept)
