"""Accuracy on clean and on attacked images."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from zoo.attacks import ATTACKS, Victim, fp32
from zoo.card import Evaluation
from zoo.errors import UserError
from zoo.evaluation.sweeps import QUICK, Sweep


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    sweeps: Sequence[Sweep] = QUICK,
    *,
    batch_size: int = 250,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> list[Evaluation]:
    """Measure clean accuracy, then the accuracy under each attack at each radius.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        images: uint8 (N, C, H, W), N >= 1.
        labels: class indices (N,).
        sweeps: what to attack with.
        batch_size: images at a time.
        device: where to compute; the model is moved there. None: where the model is.
        progress: show a bar with the running accuracy, if standard error is a terminal.

    Returns:
        The clean accuracy first, then one evaluation per sweep and radius.

    Raises:
        UserError: see `zoo.attacks.Attack`.
    """
    if device is not None:
        model.to(device)
    with _bar(progress) as bar:
        clean = _judge(_clean(model), "clean", images, labels, batch_size, _device(model), bar)
        found = [Evaluation(attack="clean", norm=None, eps=0.0, accuracy=_share(clean[0]), n=len(images))]
        for sweep in sweeps:
            robust = robust_images(model, images, labels, sweep, batch_size=batch_size, bar=bar)
            found += [_evaluation(sweep, eps, row) for eps, row in zip(sweep.eps, robust, strict=True)]
    return found


def robust_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    sweep: Sweep,
    *,
    batch_size: int = 250,
    bar: Progress | None = None,
) -> Tensor:
    """Say for each radius of a sweep (E) which images (N) withstand the attack: bool (E, N), on the CPU.

    Args:
        model, images, labels, batch_size: see `evaluate`.
        sweep: an attack and its radii.
        bar: to show the running accuracy on.
    """

    def attacked(batch: Tensor, batch_labels: Tensor) -> Tensor:
        return sweep.attack(model, batch, batch_labels, sweep.eps).robust

    return _judge(attacked, sweep.name, images, labels, batch_size, _device(model), bar)


def _clean(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    if model.training:
        raise UserError("the model is in training mode: call model.eval() before an evaluation")

    def judge(batch: Tensor, batch_labels: Tensor) -> Tensor:
        with fp32(batch.device):
            return Victim(model).right(batch, batch_labels)[None]

    return judge


def _judge(
    verdicts: Callable[[Tensor, Tensor], Tensor],
    name: str,
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    device: torch.device,
    bar: Progress | None,
) -> Tensor:
    """Ask for the verdicts (E, B) of all images, batch by batch."""
    if not len(images):
        raise UserError("there are no images to evaluate on")
    task = bar.add_task(name, total=len(images), accuracy="") if bar else None
    found: list[Tensor] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].to(device).float().div(255)
        found.append(verdicts(batch, labels[start : start + batch_size].to(device)).cpu())
        if bar and task is not None:
            running = " ".join(f"{_share(row):.1%}" for row in torch.cat(found, dim=1))
            bar.update(task, advance=len(batch), accuracy=running)
    return torch.cat(found, dim=1)


def _evaluation(sweep: Sweep, eps: float, robust: Tensor) -> Evaluation:
    settings = asdict(sweep.attack)
    return Evaluation(
        attack=ATTACKS.name_of(sweep.attack),
        norm=settings.pop("norm"),
        eps=eps,
        accuracy=_share(robust),
        n=len(robust),
        options=settings,
    )


def _share(verdicts: Tensor) -> float:
    return int(verdicts.sum()) / len(verdicts)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


def _bar(shown: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("accuracy {task.fields[accuracy]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )
