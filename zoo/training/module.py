"""The one LightningModule: a backbone, a method, and the data they are trained on."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from zoo.adversaries import Threat
from zoo.adversaries.none import NoAdversary
from zoo.attacks import Gradients
from zoo.callbacks import InputGradients, RankSchedule
from zoo.callbacks.conditioning import log_interval
from zoo.channels import fit_shapes_
from zoo.data import DataSet, EvalBatches, Source, TrainBatches, augmentation, mixed_seed, mixing, stratified, to_unit
from zoo.errors import UserError
from zoo.lowrank.applied_once import applied_once
from zoo.lowrank.factorize import Ranks
from zoo.runs.config import TrainConfig
from zoo.sensitivity.held_out import HeldOut
from zoo.training.awp import WeightPerturbation
from zoo.training.balance import balance_layers_
from zoo.training.build import budget
from zoo.training.captured_step import CapturedStep
from zoo.training.checks import check_finite, check_shares, single_values_refused
from zoo.training.optimizer import build_optimizer
from zoo.training.parts import Parts
from zoo.training.processes import kept_batch
from zoo.training.resume_check import recipe
from zoo.training.robust_validation import PROBE_IMAGES, monitored_attacks, robust_accuracies
from zoo.training.schedule import learning_rate_factor, ramp
from zoo.training.teacher import Teacher


class Classifier(pl.LightningModule):
    """Drives a method: its loss, its parameter groups and its callbacks, with an adversary, on one data set.

    Every random choice of a step is a function of (seed, epoch, batch), so a run that was killed repeats
    the steps since its last checkpoint exactly.

    Args:
        model: takes images in [0, 1]; already converted by the method.
        parts: the plugins of the training: method, adversary, regularizer.
        data: the data set.
        source: its training split.
        config: the recipe.
        teacher: whose answers replace the labels; None: the labels are used.
        began: how many processes trained when the training began; None: as many as now.
        start: name and SHA-256 of the weights that training starts from; None: random ones.
    """

    def __init__(
        self,
        model: nn.Module,
        parts: Parts,
        data: DataSet,
        source: Source,
        config: TrainConfig,
        teacher: Teacher | None = None,
        began: int | None = None,
        start: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.parts, self.method, self.adversary = parts, parts.method, parts.adversary
        self.data, self.config = data, config
        self.source = source
        self.teacher, self.began, self.start = teacher, began, start
        self.input_gradients: InputGradients | None = None  # of the current step, if `GradientAlignment` asks
        # On the device, where each replay of a captured step reads it.
        self.progress: Tensor
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        # In a tuple; otherwise its parameters would be registered a second time.
        self._compiled = (cast(nn.Module, torch.compile(self.model, dynamic=False)),) if config.compile else ()
        self.weight_adversary = WeightPerturbation(self.model, config.awp) if config.awp else None
        self.captured = CapturedStep(self.model, self.losses, self.on_after_backward) if config.cuda_graph else None
        self.train_indices, self.val_indices = data.train_val(source.labels, config.val_fraction)

    def setup(self, stage: str) -> None:
        """Move the training images and the teacher to the device."""
        self.source = self.source.to(self.trainer.strategy.root_device)
        if self.teacher is not None:
            self.teacher.to(self.trainer.strategy.root_device)

    def on_fit_start(self) -> None:
        """Balance the layers, if requested; the callbacks' constraints hold by now."""
        if self.config.balance and self.trainer.ckpt_path is None:
            balance_layers_(self)

    @property
    def held_out(self) -> HeldOut:
        """The validation images, for decisions during training."""
        return HeldOut(lambda: self.source, self.val_indices, self.config.threat.eps)

    @property
    def network(self) -> nn.Module:
        """The model of the training steps, compiled if requested; validation, with batches of many sizes, is not."""
        return self._compiled[0] if self._compiled else self.model

    @property
    def ranks(self) -> Ranks:
        """The current rank (or width) of each layer, from which the method rebuilds the backbone."""
        return self.method.ranks(self.model.get_submodule("backbone"))

    def load_checkpoint(self, path: Path) -> None:
        """Take the weights of a checkpoint of this training, whose ranks may be others.

        Raises:
            UserError: it is damaged.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        except Exception as error:  # zip, pickle and key errors of a damaged file
            raise UserError(
                f"{path} cannot be read ({type(error).__name__}): delete it to end with the last epoch"
            ) from None
        fit_shapes_(self, state)
        self.load_state_dict(state)

    @property
    def is_robust_training(self) -> bool:
        """Whether there is an adversary, so that networks are measured under PGD at its radius."""
        return not isinstance(self.adversary, NoAdversary)

    @property
    def robust_accuracy(self) -> str:
        """The metric by which adversarial training keeps its best epoch."""
        return f"val_{self.config.monitor}_accuracy"

    @property
    def gradients(self) -> Gradients:
        """Number format of CR's gradients: that of the training, if it is bf16."""
        return "bf16" if self.trainer.precision == "bf16-mixed" else "fp32"

    @property
    def val_batch_size(self) -> int:
        """Images per validation batch: nothing is kept for a backward pass."""
        return 2 * self.config.batch_size

    def batches_per_epoch(self, processes: int = 1) -> tuple[int, int]:
        """Return the batches of a training epoch and of a validation, in each of some processes.

        Raises:
            UserError: a process would have no image.
        """
        train, val = len(self.train_indices), len(self.val_indices)
        check_shares(train, val, processes)
        training = max(1, train // processes // kept_batch(self.config.batch_size, self.began, processes))
        return training, -(-val // processes // self.val_batch_size)

    @property
    def _shard(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    @property
    def _risen(self) -> float:
        """Share of eps that the current step has reached."""
        ramped = self.config.eps_ramp
        return ramp(self.trainer.global_step, self.total_steps, ramped) if ramped else 1.0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return int(self.trainer.estimated_stepping_batches)

    def train_dataloader(self) -> TrainBatches:
        """Return the shuffled, augmented training batches."""
        return TrainBatches(
            self.source,
            self.train_indices,
            kept_batch(self.config.batch_size, self.began, self.trainer.world_size),
            augmentation(self.config.augment, self.data),
            self.config.seed,
            epoch=lambda: self.current_epoch,
            shard=self._shard,
            mix=mixing(self.config.augment, self.data),
        )

    def val_dataloader(self) -> EvalBatches:
        """Return the validation batches, cut from the training split."""
        return EvalBatches(self.source, self.val_indices, self.val_batch_size, self._shard)

    def forward(self, images: Tensor) -> Tensor:
        """Classify uint8 images (B, C, H, W): logits (B, classes)."""
        return self.model(to_unit(images))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout and similar layers for this step, and set the progress of the training."""
        self.progress.fill_(self.trainer.global_step / self.total_steps)
        torch.manual_seed(mixed_seed(self.config.seed, self.current_epoch, batch_idx, self.global_rank, 1))

    @property
    def threat(self) -> Threat:
        """The threat of the current step: the recipe's, at a smaller eps during its ramp."""
        threat = replace(self.config.threat, progress=self.progress)
        return replace(threat, eps=threat.eps * self._risen) if self._risen < 1 else threat

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the method's loss at the adversary's images, the logits, and further scalars to log.

        Args:
            images: uint8 (B, C, H, W).
            labels: (B,), or the probabilities (B, K) of blended images.
        """
        images, threat = to_unit(images), self.threat
        if labels.ndim == 2:
            threat = replace(threat, soft_targets=smoothed(labels, threat.label_smoothing))
            labels = labels.argmax(1)
        if self.teacher is not None:
            threat = replace(threat, soft_targets=self.teacher(images))
        watched = self.input_gradients
        if watched is not None:
            threat = replace(threat, watch=watched.begin)
        with self.method.searched_on(self.model):
            adversarial = self.adversary.search(self.network, images, labels, threat)
        if watched is not None:
            adversarial = watched.end(adversarial)

        def objective(
            model: nn.Module, images: Tensor, labels: Tensor, soft_targets: Tensor | None = None
        ) -> dict[str, Tensor]:
            at = threat if soft_targets is None else replace(threat, soft_targets=soft_targets)
            return self.adversary.loss(model, images, adversarial, labels, at)

        def present() -> dict[str, Tensor]:
            with single_values_refused(), applied_once(self.model):
                result = self.method.loss(self.network, images, labels, objective)
            added = self.parts.regularizer.penalty(self.model, images, labels)
            return result | added | {"loss": result["loss"] + added.get("penalty", 0.0)}

        if self.weight_adversary is not None:
            self.weight_adversary.perturb(lambda: present()["loss"])
        return present()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss, and log it with its further scalars."""
        # A graph replays the eps of its capture, so there is no graph while eps rises.
        result = (self.captured if self.captured and self._risen == 1 else self.losses)(*batch)
        loss, labels, logits = result["loss"], batch[1], result.pop("logits").float()
        self._check_finite(loss)
        truth = labels.argmax(1) if labels.ndim == 2 else labels  # of a blend, the class that most of it shows
        self.log("accuracy", (logits.argmax(1) == truth).float().mean(), prog_bar=True)
        for name, value in result.items():
            self.log(name, value.detach(), prog_bar=name == "loss")
        return loss

    def _check_finite(self, loss: Tensor) -> None:
        # Reading the loss waits for the device: each step on a CPU, at logging steps elsewhere.
        if loss.device.type == "cpu" or self.trainer.global_step % log_interval(self.trainer) == 0:
            where = f"step {self.trainer.global_step} of epoch {self.current_epoch}"
            check_finite(loss, where, self.config.lr)

    def on_after_backward(self) -> None:
        """Restore the weights from which the step is made."""
        if self.weight_adversary is not None:
            self.weight_adversary.undo()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy on the validation images."""
        images, labels = batch
        logits = self(images).float()
        options: dict[str, Any] = {"batch_size": len(labels), "sync_dist": self.trainer.world_size > 1}
        self.log("val_loss", F.cross_entropy(logits, labels), **options)
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True, **options)
        if self.is_robust_training and batch_idx * self.val_batch_size < PROBE_IMAGES:
            attacks = monitored_attacks(self.config.monitor, self.gradients)
            measured = robust_accuracies(self.model, to_unit(images), labels, self.config.threat.eps, attacks)
            self.log_dict(measured, prog_bar=True, **options)

    def configure_optimizers(self) -> Any:
        """Return the optimizer with the method's parameter groups, and its schedule per step."""
        c = self.config
        groups = [g for g in self.method.parameter_groups(self.model, c.weight_decay) if g["params"]]
        optimizer = build_optimizer(c.optimizer, groups, c.lr, c.momentum)
        factor = learning_rate_factor(c.schedule, self.total_steps, c.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        """Return the method's callbacks; a training that starts from a finished model keeps its ranks."""
        callbacks = self.method.callbacks(budget(self.config), self.held_out)
        return [x for x in callbacks if not (self.config.init and isinstance(x, RankSchedule))]

    def probe(self) -> tuple[Tensor, Tensor]:
        """Return a few training images, in [0, 1], and their labels: the same ones at each call."""
        few = self.train_indices[stratified(self.source.labels[self.train_indices].cpu(), PROBE_IMAGES, seed=0)]
        labels = self.source.labels[few.to(self.source.labels.device)]
        return to_unit(self.source.fetch(few.to(labels.device))), labels

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the ranks, from which a resumed run rebuilds the model, the recipe, and how many processes trained."""
        checkpoint["ranks"] = self.ranks
        checkpoint["processes"] = self.began or self.trainer.world_size
        checkpoint["recipe"] = recipe(self.config, self.parts, self.teacher.sha256 if self.teacher else None)


def smoothed(probabilities: Tensor, smoothing: float) -> Tensor:
    """Spread a share of each probability over all classes: (B, K) to the same shape."""
    return probabilities * (1 - smoothing) + smoothing / probabilities.shape[1]
