"""Merge runs: read them, combine their weights by a rule, bring the result into its form, measure and write it."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.backbone import with_normalization
from zoo.data import DataSet, open_known
from zoo.errors import UserError
from zoo.hub.runs import read_run
from zoo.lowrank.factorize import weight_layers
from zoo.merging.config import MergeConfig
from zoo.merging.form import Form
from zoo.merging.judge import Judge
from zoo.merging.lineage import apart, check_alike, start_of
from zoo.merging.rules import RULES, Candidates, MergeRule, State
from zoo.merging.write import write
from zoo.nested.recalibrate import attacked_images
from zoo.runs.run import Run, other_shapes
from zoo.runs.transfer import load_multiplied_out
from zoo.runtime.batch_norm import reestimate_batch_norm_
from zoo.training.build import starting_backbone
from zoo.training.folder import refuse_occupied


def merge_runs(sources: Sequence[str | Path], rule: MergeRule, config: MergeConfig, command: str = "") -> Run:
    """Merge runs that began as one network, and write the result as a run.

    Args:
        sources: RUN folders or published names, at least two.
        rule: how.
        config: the size of the result, and the images.
        command: the command line, for the card.

    Raises:
        UserError: the runs are of different architectures, data or starts (the measured barrier between them is named
            then), or data or a budget are impossible. Nothing is written then.
    """
    runs = [read_run(source) for source in sources]
    check_alike(runs)
    folder = config.out or Path("runs") / f"{runs[0].name}-{RULES.name_of(rule)}"
    refuse_occupied(folder, config.overwrite)
    form = Form.of(runs, config)
    device = _device(config.device)
    began, first = time.monotonic(), runs[0]
    data = open_known(
        first.card.data,
        data_dir=config.data_dir or first.data_dir,
        download=config.download,
        image_shape=first.card.image_shape,
        class_names=first.card.class_names,
    )
    judge = Judge(runs, data, config.val_images, device)
    states = [multiplied_out(run) for run in runs]
    refuse_different_starts(runs, states, judge, form)
    start = start_of(runs, config.start) if rule.needs_start else None
    candidates = _candidates(runs, states, start, judge, form)
    merged = rule.merge(candidates)
    trained = form.network(merged.state)
    images = attacked_images(trained, _robust(runs), data)
    reestimate_batch_norm_(trained, images)
    options = {"kind": RULES.kind, "name": RULES.name_of(rule)} | dataclasses.asdict(rule)
    outcome = {"runs": {run.name: run.card.weights.sha256 for run in runs}} | merged.outcome
    training = _training(runs, time.monotonic() - began, data, sum(map(len, images)))
    return write(folder, form, trained, config, judge.eps, [options | {"outcome": outcome}], training, command, device)


def multiplied_out(run: Run) -> State:
    """Return a run's tensors, with each factorized layer as the product of its factors."""
    dense = run.dense_model().get_submodule("backbone")
    load_multiplied_out(run, dense)
    return dict(dense.state_dict())


def refuse_different_starts(runs: list[Run], states: list[State], judge: Judge, form: Form) -> None:
    """Check that runs began as one network.

    Raises:
        UserError: two did not; the message has the accuracies on the line between them.
    """
    found = apart(runs)
    if found is None:
        return
    (one, at), (other, to) = ((run, states[runs.index(run)]) for run in found)
    ends = judge.barrier(at, to, dataclasses.replace(form, ranks={}).network)
    points = 50 * (ends[0].clean + ends[2].clean) - 100 * ends[1].clean
    raise UserError(
        f"{one.name} and {other.name} did not begin as one network: halfway between them accuracy is "
        f"{ends[1].clean:.1%}, at the ends {ends[0].clean:.1%} and {ends[2].clean:.1%} ({judge.n} validation images), "
        f"a barrier of {points:.1f} points; merge runs of one start, as `zoo train --init {one.name}` makes them"
    )


def _candidates(runs: list[Run], states: list[State], start: str | None, judge: Judge, form: Form) -> Candidates:
    card = runs[0].card
    dense = runs[0].dense_model().get_submodule("backbone")
    began = start_state(start, card.arch, card.stem, card.image_shape, dense) if start is not None else {}
    matrices = {f"{layer.name}.weight" for layer in weight_layers(dense)} & began.keys()
    device = judge.device
    network = with_normalization(dense, card.mean, card.std).eval().to(device)
    moved = [{name: value.to(device) for name, value in state.items()} for state in (began, *states)]
    return Candidates(
        moved[0],
        moved[1:],
        [run.name for run in runs],
        frozenset(matrices),
        network,
        lambda state: judge.measure(form.network(state)),
        judge.images,
    )


def start_state(start: str, arch: str, stem: Any, image_shape: tuple[int, int, int], dense: nn.Module) -> State:
    """Return the tensors of the network that runs began as; those of a classifier for other classes are left out."""
    if (path := Path(start)).is_file():
        classes = int(dense.get_classifier().out_features)  # type: ignore[operator]
        found = dict(starting_backbone(arch, classes, image_shape, path, stem=stem).state_dict())
    else:
        found = multiplied_out(read_run(start))
    left = other_shapes(dense.state_dict(), found)
    return {name: value for name, value in found.items() if name not in left}


def _robust(runs: list[Run]) -> Run:
    """Return the run that was trained against the largest radius."""
    return max(runs, key=lambda run: run.card.training.get("adversary_options", {}).get("eps", 0.0))


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but torch sees no CUDA device here: use --device cpu or auto")
    return torch.device("cuda" if torch.cuda.is_available() and name != "cpu" else "cpu")


def _training(runs: list[Run], seconds: float, data: DataSet, images: int) -> dict[str, Any]:
    """Return what the card says in the place of a training's figures; the threat is that of the largest radius."""
    robust = _robust(runs).card.training
    kept = ("normalization", "adversary", "adversary_options", "start")
    return {
        "epochs": 0,
        "steps": 0,
        "precision": "32-true",
        "seconds": round(seconds, 1),
        "batch_norm_images": images,
        "test_images": data.test_note or "the test split",
    } | {key: robust[key] for key in kept if key in robust}
