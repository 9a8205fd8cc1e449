"""Balance the layers before a training, so that each turns by the same angle in a step.

A layer whose output a BatchNorm reads computes the same at any scale of its weight W, but a step of SGD turns it by an
angle ~ lr ||g|| / ||W||, and g ~ 1 / ||W||: only lr / ||W||^2 matters. Weight decay (wd) balances the growth that the
steps bring at an expected angle of sqrt(2 lr wd / (1 + momentum)) a step, the same for all layers (Kosson, Messmer,
Jaggi: Rotational equilibrium, ICML 2024, arXiv 2305.17212), but only after some 1 / (lr wd) steps, which short
trainings do not have. Cuts leave the norms far from equilibrium: bounding the condition number of a layer with a steep
spectrum leaves a small fraction of its norm, and each step then replaces the layer instead of improving it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.backbone.fold_batch_norm import batch_norm_pairs, has_plain_weight
from zoo.callbacks import StepHook
from zoo.lowrank.layers import Factorized
from zoo.runtime.eval_mode import evaluating

if TYPE_CHECKING:
    from zoo.training.module import Classifier

BATCHES = 4
"""Training batches whose gradients are measured."""
LARGEST_SCALE = 1e3
"""Largest factor of a weight, up or down: a weight with almost no gradient says nothing about its scale."""


def balance_layers_(module: "Classifier") -> dict[str, float]:
    """Scale each layer that a BatchNorm reads so that it turns as at equilibrium, in place; outputs stay the same.

    The relative change of the weight per unit of learning rate, without momentum, becomes
    sqrt(2 wd (1 - momentum) / lr) at the recipe's largest learning rate.

    Args:
        module: at the start of a fit by SGD with weight decay, after its constraints have been met.

    Returns:
        The factor of each layer's weight, by the layer's name in the model.
    """
    config, model = module.config, module.model
    images, _ = module.probe()
    with evaluating(model):
        pairs = batch_norm_pairs(model, images[:2], _is_layer)
        turns = dict.fromkeys((layer for layer, _ in pairs), 0.0)
        model.train()
        with _buffers_kept(model):
            for batch in islice(module.train_dataloader(), BATCHES):
                _set_gradients(module, [x.to(images.device) for x in batch])
                for name in turns:
                    turns[name] += relative_change(model.get_submodule(name)) ** 2 / BATCHES
    model.zero_grad()
    wanted = math.sqrt(2 * config.weight_decay * (1 - config.momentum) / config.lr)
    scales = {}
    for layer, norm in pairs:
        if turns[layer] > 0:
            scale = math.sqrt(math.sqrt(turns[layer]) / wanted)
            scales[layer] = min(max(scale, 1 / LARGEST_SCALE), LARGEST_SCALE)
            scale_(model.get_submodule(layer), model.get_submodule(norm), scales[layer])
    return scales


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, Factorized) or has_plain_weight(module)


def _set_gradients(module: "Classifier", batch: list[Tensor]) -> None:
    """Compute the directions in which a step would move the parameters."""
    module.model.zero_grad()
    module.losses(*batch)["loss"].backward()
    module.on_after_backward()
    for callback in module.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StepHook):
            callback.constraint.gradient_flow_(callback.layers)


@torch.no_grad()
def relative_change(layer: nn.Module) -> float:
    """Return ||dW|| / ||W|| for a step of SGD from the current gradients, per unit of learning rate; 0 without any."""
    weight: Any = layer.weight
    if not isinstance(layer, Factorized):
        change = layer.get_parameter("weight").grad
    else:
        # W is linear in each factor, so its change is that in U, plus that in S, plus that in V.
        parts = []
        for factor in (layer.U, layer.S, layer.V):
            if factor.grad is not None:
                value, factor.data = factor.data, factor.grad
                parts.append(layer.weight)
                factor.data = value
        change = sum(parts[1:], parts[0]) if parts else None
    return 0.0 if change is None else float(change.norm() / weight.norm().clamp_min(1e-12))


@torch.no_grad()
def scale_(layer: nn.Module, norm: nn.Module, factor: float) -> None:
    """Multiply a layer's weight and bias, and make the BatchNorm that reads it undo that exactly in eval mode."""
    bn: Any = norm
    scaled = (layer.S if isinstance(layer, Factorized) else layer.weight, layer.bias)
    for parameter in scaled:
        if isinstance(parameter, Tensor):
            parameter.mul_(factor)
    if bn.weight is not None:  # eps does not scale with the variance
        bn.weight.mul_((bn.running_var + bn.eps / factor**2).sqrt() / (bn.running_var + bn.eps).sqrt())
    bn.running_mean.mul_(factor)
    bn.running_var.mul_(factor**2)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Restore BatchNorm's statistics."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in saved:
            buffer.copy_(value)
