"""The networks of a page: opened, exported, and described for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.attacks import format_eps
from zoo.bench.baselines import export_dense, has_backbone
from zoo.errors import UserError
from zoo.export.exporter import export_model
from zoo.hub.index import Robust, Summary
from zoo.hub.runs import look_at
from zoo.report.cases import NAMES
from zoo.runs.card import Card
from zoo.runs.file_metadata import Metadata
from zoo.runs.run import Run


@dataclass(frozen=True)
class Network:
    """A trained network of a page.

    Attributes:
        name: to show.
        run: it comes from.
        file: the exported graph.
    """

    name: str
    run: Run
    file: Path


def open_runs(targets: Sequence[str], hub: str | None) -> dict[str, Run]:
    """Open runs and published models for reading, by the name to show.

    Raises:
        UserError: one of them is neither, is given twice, or sees other pictures or classes than the first.
    """
    runs = {target: look_at(target, hub) for target in targets}
    if len(runs) < len(targets):
        twice = next(target for target in targets if list(targets).count(target) > 1)
        raise UserError(f"{twice} is given twice: leave one out")
    first, *others = runs.items()
    for name, run in others:
        for what, one, other in (
            ("data", first[1].card.data, run.card.data),
            ("pictures", first[1].card.image_shape, run.card.image_shape),
            ("classes", first[1].card.class_names, run.card.class_names),
        ):
            if one != other:
                said = "" if what == "classes" else f" ({_said(one)} and {_said(other)})"
                raise UserError(f"{first[0]} and {name} have different {what}{said}: a page shows networks of one task")
    channels = first[1].card.image_shape[0]
    if channels not in (1, 3):
        raise UserError(f"{first[0]} takes pictures of {channels} channels: a page shows those of 1 or 3")
    names = [run.name for run in runs.values()]
    return {run.name if names.count(run.name) == 1 else target: run for target, run in runs.items()}


def _said(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def export_networks(runs: dict[str, Run], folder: Path) -> list[Network]:
    """Export each run's network for any machine into a folder."""
    networks = []
    for i, (name, run) in enumerate(runs.items(), 1):
        file = folder / f"network-{i}.onnx"
        export_model(run.model(), Metadata.of(run.card), file)
        networks.append(Network(name, run, file))
    return networks


def described(network: Network) -> dict[str, Any]:
    """Return what the page says of a network."""
    card = network.run.card
    robust = Summary.of(card).robust_at()
    return {
        "name": network.name,
        "removed": f"{card.compression:.0%}",
        "training": _training(card),
        "clean": f"{card.clean.accuracy:.1%}" if card.clean else "",
        "robust": _under_attack(robust) if robust else "",
        **_size(network.file, Metadata.of(card)),
    }


def _training(card: Card) -> str:
    threat = card.threat_model
    if card.training.get("adversary", "none") == "none" or threat is None:
        return "trained on unchanged pictures"
    return f"trained against attacks at {format_eps(threat.eps)}"


def _under_attack(robust: Robust) -> str:
    """Write an accuracy with its attack and radius, marked if it is only an upper bound."""
    bound = "" if robust.attack == "autoattack" else "<"
    attack = NAMES.get(robust.attack, robust.attack.upper().replace("_T", "-T"))
    return f"{bound}{robust.accuracy:.1%} ({attack}, {format_eps(robust.eps)})"


def _size(file: Path, metadata: Metadata) -> dict[str, Any]:
    return {"file": file.name, "bytes": file.stat().st_size, "params": metadata.params, "macs": metadata.macs}


def dense_networks(networks: Sequence[Network], folder: Path) -> list[dict[str, Any]]:
    """Export the uncompressed network of each architecture that is not among those given, with random weights.

    Latency does not depend on the weights; the page times them and shows no answers of theirs.
    """
    given = {n.run.card.arch for n in networks if n.run.card.method == "dense"}
    found: dict[str, dict[str, Any]] = {}
    for network in networks:
        metadata = Metadata.of(network.run.card)
        if metadata.arch in given | found.keys() or not has_backbone(metadata):
            continue
        dense = export_dense(metadata, folder)
        assert dense.path is not None
        file = dense.path.rename(folder / f"dense-{len(found) + 1}.onnx")
        found[metadata.arch] = {"name": f"{metadata.arch}, uncompressed", **_size(file, dense.metadata)}
    return list(found.values())
