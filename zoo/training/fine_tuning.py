"""Fine-tune one part of a trained network on clean images."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from zoo.data import TrainBatches, to_unit
from zoo.post_training import TrainedNetwork
from zoo.training.module import Classifier
from zoo.training.options import lightning_options
from zoo.training.progress import ProgressBar

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


class PartialClassifier(pl.LightningModule):
    """A trained classifier of which one parameter continues to train; everything else, norms included, is frozen.

    Args:
        classifier: after its training, in eval mode.
        layer: of the classifier, to which the callbacks of this training apply.
        part: the parameter of the layer to train.
        lr: learning rate, a tenth of it in the second half.
    """

    def __init__(self, classifier: Classifier, layer: nn.Module, part: nn.Parameter, lr: float) -> None:
        super().__init__()
        self.layer, self.part, self.lr = layer, part, lr
        self._classifier = (classifier,)  # in a tuple; otherwise Lightning would put all of it into training mode

    def train_dataloader(self) -> TrainBatches:
        """Return the classifier's training batches, in a separate order."""
        c = self._classifier[0]
        return TrainBatches(
            c.source,
            c.train_indices,
            c.config.batch_size,
            c.data.augmentation,
            c.config.seed + 1,
            epoch=lambda: self.current_epoch,
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy on clean images."""
        images, labels = batch
        loss = F.cross_entropy(self._classifier[0].model(to_unit(images)).float(), labels)
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Return SGD over the one parameter."""
        optimizer = torch.optim.SGD([self.part], self.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        half = [max(1, (self.trainer.max_epochs or 1) // 2)]
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, half)}


def trained_network(classifier: Classifier) -> TrainedNetwork:
    """Return a classifier, in eval mode, as the value for the steps after training."""
    c = classifier
    return TrainedNetwork(c.model, c.method, c.held_out, partial(fine_tune, c))


def fine_tune(
    classifier: Classifier,
    layer: nn.Module,
    part: nn.Parameter,
    constraints: Sequence[Callback],
    epochs: int,
    lr: float,
) -> None:
    """Train one parameter of a trained classifier on its clean training images, in place.

    The recipe is that of arXiv 2308.02533: SGD with momentum 0.9, weight decay 5e-4, a tenth of the learning rate in
    the second half.

    Args:
        classifier: in eval mode, and left so, on the device where it is trained.
        layer: that the constraints apply to.
        part: the parameter of the layer that learns.
        constraints: callbacks that keep the layer within its method's constraints.
        epochs: passes over the training images.
        lr: learning rate.
    """
    device, config = part.device, classifier.config
    options = lightning_options(config, classifier.model, classifier.data.image_shape)
    required = {p: p.requires_grad for p in classifier.parameters()}
    for p in required:
        p.requires_grad_(p is part)
    module = PartialClassifier(classifier, layer, part, lr).to(device)
    trainer = pl.Trainer(
        accelerator=options["accelerator"],
        devices=1,
        precision=options["precision"],
        max_epochs=epochs,
        callbacks=[*constraints, ProgressBar()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(module)
    except SystemExit:
        raise KeyboardInterrupt from None
    layer.to(device).eval()  # Lightning leaves the layer in training mode on the CPU
    for p, value in required.items():
        p.requires_grad_(value)
