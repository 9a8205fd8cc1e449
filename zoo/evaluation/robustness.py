"""Accuracy on clean and on attacked images."""

from collections.abc import Sequence

import torch
from rich.progress import TaskProgressColumn, TextColumn
from torch import Tensor, nn

from zoo.attacks import Gradients, Queries
from zoo.evaluation.evaluator import Evaluator, share
from zoo.evaluation.outcomes import Outcomes
from zoo.evaluation.progress import progress_bar
from zoo.evaluation.sweeps import QUICK, Sweep
from zoo.runs.records import Evaluation
from zoo.runtime.memory import keep_freed_memory

RUNNING = "accuracy at most {task.fields[accuracy]:.1%}"


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    sweeps: Sequence[Sweep] = QUICK,
    *,
    batch_size: int = 250,
    gradients: Gradients = "fp32",
    queries: Queries | None = None,
    device: torch.device | str | None = None,
    outcomes: Outcomes | None = None,
    progress: bool = True,
) -> list[Evaluation]:
    """Measure clean accuracy, then the accuracy under each attack at each radius.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        images: uint8 (N, C, H, W), N >= 1.
        labels: class indices (N,).
        sweeps: attacks with their radii.
        batch_size: images that the model gets at once, at most; on a CPU fewer large ones.
        gradients: of the attacks; ``bf16`` is noted in the options of the evaluations.
        queries: the same function by a faster library, for attacks without gradients; verdicts are still the model's.
        device: where to compute; the model is moved there. None: where the model is.
        outcomes: verdicts of this model on these images; those in it are not computed again.
        progress: show a bar with the running accuracy on standard error, or a line after each long search if that is
            not a terminal.

    Returns:
        The clean accuracy first, then one evaluation per sweep and radius.

    Raises:
        UserError: see `zoo.attacks.Attack`.
    """
    if device is not None:
        model.to(device)
    with progress_bar(progress, TaskProgressColumn(), TextColumn(RUNNING)) as bar:
        evaluator = Evaluator(model, images, labels, batch_size, outcomes or Outcomes(), bar, gradients, queries)
        if evaluator.device.type == "cpu":
            keep_freed_memory()
        found = [Evaluation(attack="clean", norm=None, eps=0.0, accuracy=share(evaluator.correct), n=len(images))]
        return found + [evaluator.evaluation(sweep.attack, eps) for sweep in sweeps for eps in sweep.eps]
