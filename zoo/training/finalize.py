"""Turn a trained module into the files of a finished run."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer

from zoo.adversaries import ADVERSARIES
from zoo.attacks.pgd import PGD
from zoo.callbacks import RankSchedule, peers
from zoo.data import load_test
from zoo.errors import UserError
from zoo.evaluation import QUICK, Sweep, quick_evaluation
from zoo.runs.description import describe
from zoo.runs.provenance import commit, hardware, versions
from zoo.runs.records import Provenance
from zoo.runs.run import BEST, CARD, Run, save_weights
from zoo.runs.task import Task
from zoo.training.calibration import attacked_batches
from zoo.training.fine_tuning import trained_network
from zoo.training.module import Classifier


def finalize_run(folder: Path, module: Classifier, trainer: pl.Trainer, command: str) -> Run:
    """Load the best weights, refine them, and write the run's files; see `write_run`.

    Args:
        folder: the run's folder.
        module: trained.
        trainer: that trained it.
        command: the command line, for the card.

    Raises:
        UserError: the training ended before ranks or widths were final, so the network is larger than its budget.
    """
    if not all(schedule.done for schedule in peers(trainer, RankSchedule)):
        raise UserError(
            f"the training ended in step {trainer.global_step}, before its last cut of ranks or channels: "
            "train for longer, or cut earlier"
        )
    if (folder / BEST).is_file():
        module.load_checkpoint(folder / BEST)
    device = trainer.strategy.root_device
    training = _training(module, trainer)
    module.method.merge_(module.model)
    outcome = module.parts.finisher.refine(trained_network(module.to(device).eval()))
    module.method.calibrate(module.model, partial(attacked_batches, module))
    applied = module.parts.applied(**({"finish": outcome} if outcome else {}))
    return write_run(folder, module, device, training, applied, command)


def write_run(
    folder: Path,
    module: Classifier,
    device: torch.device,
    training: dict[str, Any],
    applied: Sequence[dict[str, Any]],
    command: str,
) -> Run:
    """Save the weights, measure the model on the test split, and write the card.

    Args:
        folder: the run's folder.
        module: finished.
        device: where to measure it.
        training: the training's own measurements, for the card.
        applied: the plugins applied to the network, in order, for the card.
        command: the command line, for the card.
    """
    config, data, method = module.config, module.data, module.method
    trained = module.model.cpu().eval()
    deployed = method.deploy(trained).eval()
    images, labels = load_test(
        config.data,
        data_dir=config.data_dir,
        download=False,
        image_shape=data.image_shape,
        class_names=data.class_names,
        n=config.n,
    )
    sweeps = QUICK
    if module.is_robust_training:
        sweeps = (*QUICK, Sweep(PGD(steps=20), (config.threat.eps,)))
    result = quick_evaluation(deployed, trained, images, labels, sweeps, device=device)
    deployed = deployed.cpu()
    card = describe(
        Task(config.arch, config.stem, config.data, data.image_shape, data.mean, data.std, data.class_names),
        method,
        deployed,
        module.ranks,
        save_weights(trained, folder),
        result.condition_numbers,
        training=training,
        applied=applied,
        provenance=Provenance(
            command=command, seed=config.seed, commit=commit(), versions=versions(), hardware=hardware(device)
        ),
    )
    measured = {"evaluations": tuple(result.evaluations), "sanity": result.sanity, "calibration": result.calibration}
    card = card.model_copy(update={**measured, "lipschitz_bound": result.lipschitz_bound})
    card.save(folder / CARD)
    (folder / BEST).unlink(missing_ok=True)
    return Run(folder)


def _training(module: Classifier, trainer: pl.Trainer) -> dict[str, Any]:
    """Return the training's own measurements."""
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k in ("val_accuracy", "val_loss", "loss")}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            # The saved weights are those of the best epoch; the others are figures of the last one.
            metrics = {callback.monitor: callback.best_model_score.item()}
    return {
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "precision": str(trainer.precision),
        "seconds": round(sum(timer.time_elapsed() for timer in peers(trainer, Timer)), 1),
        "train_images": len(module.train_indices),
        "val_images": len(module.val_indices),
        "test_images": module.data.test_note or "the test split",
        "normalization": module.data.normalization,
        "augment": module.config.augment,
        "awp": module.config.awp,
        "ema": module.config.ema,
        "adversary": ADVERSARIES.name_of(module.adversary),
        "adversary_options": _adversary_options(module),
        "trained_numbers": sum(p.numel() for p in module.model.parameters() if p.requires_grad),
        "start": module.start,
        "teacher": {"name": teacher.name, "sha256": teacher.sha256} if (teacher := module.teacher) else None,
        "regularize": module.parts.named()["regularize"],
        **metrics,
        "cuts": [cut for schedule in peers(trainer, RankSchedule) for cut in _named_as_ranks(schedule.history)],
    }


def _adversary_options(module: Classifier) -> dict[str, Any]:
    adversary, threat = module.adversary, module.config.threat
    steps = {"steps": threat.steps} if adversary.single_step is None else {}
    searched = {"eps": threat.eps, **steps, "label_smoothing": threat.label_smoothing}
    return dataclasses.asdict(adversary) | searched


def _named_as_ranks(cuts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def bare(by_name: dict[str, Any]) -> dict[str, Any]:
        return {name.removeprefix("model.backbone."): value for name, value in by_name.items()}

    return [{key: bare(value) if isinstance(value, dict) else value for key, value in cut.items()} for cut in cuts]
