"""Adversarial weight perturbation: take the loss where nearby weights make it large.

Wu, Xia, Wang: Adversarial weight perturbation helps robust generalization, NeurIPS 2020, arXiv 2004.05884.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.linalg.gradient_flow import flow_scales
from zoo.linalg.mode_products import multiply_modes
from zoo.linalg.stiefel import full_precision
from zoo.lowrank.layers import Factorized, factorized_layers

TINY = 1e-20
SCALE = 2.0**7
"""Factor of the loss, so that its gradient does not underflow in fp16; only its direction counts."""
ROUNDS = 3
"""Corrections of the length of a factorized layer's step; the product's movement is of third order in it."""


class WeightPerturbation:
    """Moves every weight of a model up its loss by a relative radius, and back.

    A plain weight W moves by gamma ||W||_F along its gradient (equation 8 of the paper). A factorized weight moves
    along the gradient flow of its trainable factors, scaled so that the product U S V^T moves by exactly gamma ||U S
    V^T||_F. Biases and normalisation stay.

    Args:
        model: whose weights move.
        gamma: relative radius, 0.005 to 0.01 in the paper.
    """

    def __init__(self, model: nn.Module, gamma: float) -> None:
        self.model, self.gamma = model, gamma
        self._before: dict[nn.Parameter, Tensor] = {}

    def perturb(self, loss: Callable[[], Tensor]) -> None:
        """Compute the loss, and move the weights along its gradient until `restore`.

        Statistics of normalisation layers do not change: the loss is computed again at the new weights.
        """
        factorized = [layer for _, layer in factorized_layers(self.model)]
        own = {id(p) for layer in factorized for p in (layer.U, layer.S, layer.V)}
        plain = [p for p in self.model.parameters() if p.requires_grad and p.ndim > 1 and id(p) not in own]
        factors = [p for layer in factorized for p in (layer.U, layer.S, layer.V) if p.requires_grad]
        moved = [*plain, *factors]
        buffers = {buffer: buffer.clone() for buffer in self.model.buffers()}
        found = torch.autograd.grad(SCALE * loss(), moved, allow_unused=True)
        gradients = {p: g for p, g in zip(moved, found, strict=True) if g is not None}
        for buffer, value in buffers.items():
            buffer.copy_(value)
        self._before = {p: p.detach().clone() for p in gradients}
        with full_precision(moved[0].device):
            for p in plain:
                if p in gradients:
                    p.add_(gradients[p] * (self.gamma * p.norm() / gradients[p].norm().clamp_min(TINY)))
            for layer in factorized:
                if any(p in gradients for p in (layer.U, layer.S, layer.V)):
                    du, ds, dv = (gradients.get(p, torch.zeros_like(p)) for p in (layer.U, layer.S, layer.V))
                    self._move(layer, du, ds, dv)
        torch.clear_autocast_cache()  # it holds the original weights

    def _move(self, layer: Factorized, du: Tensor, ds: Tensor, dv: Tensor) -> None:
        """Move the three factors together; see the class."""
        u, s, v = layer.U.data, layer.S.data, layer.V.data
        scale_u, scale_v = flow_scales([s, s], [u.shape[1], v.shape[1]])
        du, dv = du * scale_u, dv * scale_v
        left, right = torch.cat([u, du], 1), torch.cat([v, dv], 1)
        gram_left, gram_right = left.T @ left, right.T @ right
        r, c = s.shape[:2]
        wanted = self.gamma * _norm(s, gram_left[:r, :r], gram_right[:c, :c])
        first = torch.cat([torch.cat([ds, s], 1), torch.cat([s, torch.zeros_like(s)], 1)])
        t = _ratio(wanted, _norm(first, gram_left, gram_right))
        for _ in range(ROUNDS):
            core = s + t * ds
            change = torch.cat([torch.cat([t * ds, t * core], 1), torch.cat([t * core, t * t * core], 1)])
            t = t * _ratio(wanted, _norm(change, gram_left, gram_right))
        u.add_(t * du)
        s.add_(t * ds)
        v.add_(t * dv)

    @torch.no_grad()
    def undo(self) -> None:
        """Put the weights back, bit for bit."""
        for p, value in self._before.items():
            p.copy_(value)
        self._before = {}


def _ratio(wanted: Tensor, length: Tensor) -> Tensor:
    """Return wanted / length; 0 for a layer without a gradient, which does not move."""
    return torch.where(length > TINY, wanted / length, torch.zeros_like(length))


def _norm(core: Tensor, gram_left: Tensor, gram_right: Tensor) -> Tensor:
    """Return ||L core R^T||_F (along the first two axes of the core) from L^T L and R^T R."""
    return (multiply_modes(gram_left, core, gram_right) * core).sum().clamp_min(0).sqrt()
