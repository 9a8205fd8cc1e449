"""Compress any model: make a trainable copy, and from it the deployed form."""

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from zoo.api._checks import Shape, check_takes, plugin
from zoo.budget import Budget
from zoo.errors import UserError
from zoo.lowrank.factorize import LayerReport, fold, weight_layers
from zoo.lowrank.layers import factorized_layers
from zoo.lowrank.output_fit import fit_to_outputs_
from zoo.methods import METHODS, Method
from zoo.runtime.complexity import count_macs, count_params
from zoo.runtime.eval_mode import evaluating


@dataclass(frozen=True)
class Compressed:
    """A model after `compress`.

    Attributes:
        model: the compressed copy, in its trainable form.
        method: how it was compressed; its ``loss``, ``parameter_groups`` and ``callbacks`` serve its training.
        layers: the outcome for each linear and convolution layer of the original.
        dense_params: parameters of the original.
        dense_macs: multiply-accumulates of the original for one image; None where ``input_shape`` is.
        input_shape: (channels, height, width) of its images; None if it was not given.
    """

    model: nn.Module
    method: Method
    layers: tuple[LayerReport, ...]
    dense_params: int
    dense_macs: int | None
    input_shape: Shape | None

    @property
    def params(self) -> int:
        """Parameters of the deployed form."""
        return count_params(self.deploy())

    @property
    def compression(self) -> float:
        """Share of the original's parameters that the deployed form no longer has."""
        return 1 - self.params / self.dense_params

    def deploy(self) -> nn.Module:
        """Return a copy of the model in its deployed form: see `deploy`."""
        return self.method.deploy(self.model)

    def __str__(self) -> str:
        rows = [f"{x.name}: {f'rank {x.rank}, ' if x.rank is not None else ''}{x.note}" for x in self.layers]
        total = f"{self.params:,} parameters, {self.compression:.1%} fewer than {self.dense_params:,}"
        return "\n".join([*rows, total])


def compress(
    model: nn.Module,
    method: str | Method = "robust_lowrank",
    compression: float | Budget = 0.8,
    *,
    input_shape: Shape | None = None,
    images: Tensor | None = None,
    **options: Any,
) -> Compressed:
    """Return a compressed copy of a model, in its trainable form.

    Low-rank methods replace linear and ungrouped convolution layers by factorized ones, which start from the model's
    weights; ``magnitude_prune`` removes the channels with the smallest norms. Everything else (BatchNorm,
    grouped convolutions, normalisation of the images) stays as it is. The methods treat the first and the last layer
    apart: for a timm model those that timm names, for any other model the first convolution and the last linear layer
    in the order in which its modules were registered.

    Args:
        model: from timm, from torchvision or your own; it is not changed.
        method: a name, see ``zoo list --methods``, or the method itself.
        compression: share of all parameters to remove, in (0, 1), or a `Budget`.
        input_shape: (channels, height, width) of the images; needed for a budget of multiply-accumulates and by
            ``magnitude_prune``.
        images: training images (N, C, H, W), as the model takes them, for ``init="outputs"``: the factors then keep the
            outputs of the layers on them, and lose less accuracy; some hundreds do.
        options: of the method, such as ``tau=0.1`` of ``robust_lowrank``.

    Raises:
        UserError: the budget cannot be met, the method has no such option, needs data or a training to compress, or the
            model does not take images of ``input_shape``.

    Examples:
        >>> import torch, zoo
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3), torch.nn.ReLU(),
        ...     torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10),
        ... )
        >>> compressed = zoo.compress(net, "lowrank", compression=0.5, input_shape=(3, 32, 32))
        >>> print(compressed)
        0: factors would not pay at 32 x 27
        2: rank 23, 44% of its weights
        6: factors would not pay at 10 x 64
        9,706 parameters, 51.6% fewer than 20,042
        >>> small = zoo.deploy(compressed.model)
        >>> small(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    how = plugin(METHODS, method, options) if isinstance(method, str) else method
    if options and not isinstance(method, str):
        raise UserError(f"a method that is given as an object has its options: leave {', '.join(options)} out")
    _check_calibration(how, images)
    if any(factorized_layers(model)):
        raise UserError("the model has factorized layers already: give zoo.deploy(model)")
    budget = compression if isinstance(compression, Budget) else Budget(compression=compression)
    copied = copy.deepcopy(model)
    if input_shape is not None:
        check_takes(copied, input_shape)
        copied.image_shape = input_shape  # type: ignore[assignment]  # where methods look for it
    layers, total = weight_layers(copied), count_params(copied)
    macs = count_macs(copied, input_shape) if input_shape is not None else None
    copied = how.compress(copied, budget)
    if images is not None:
        with evaluating(model):
            fit_to_outputs_(copied, model, images)
    report = tuple(how.describe_layers(layers, how.ranks(copied)))
    return Compressed(copied, how, report, total, macs, input_shape)


def _check_calibration(method: Method, images: Tensor | None) -> None:
    """Check that images are given to a method that is calibrated on some, and to no other."""
    if method.calibrated_on is None:
        if images is not None:
            raise UserError(
                'images are what init="outputs" fits factors to: give that to a low-rank method, or no images'
            )
    elif images is None:
        raise UserError(
            "init outputs needs training images to fit the factors to: give images, or choose init weights or random"
        )
    elif method.calibrated_on.adversarial:
        raise UserError(
            "calibration adversarial takes the images of an adversary, which only a training has: give clean"
        )


def deploy(model: nn.Module) -> nn.Module:
    """Return a copy of a compressed model in its deployed form: plain layers, and nothing that only training needs.

    S is merged into U (the core of a Tucker-2 convolution stays), and factors that hold hardly fewer weights than their
    product are multiplied out again. A model without factorized layers, such as a pruned one, is copied. The outputs
    are the same up to rounding.

    Args:
        model: in its trainable form; each layer keeps its mode, training or not.

    Examples:
        >>> import torch, zoo
        >>> compressed = zoo.compress(torch.nn.Sequential(
        ...     torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
        ...     torch.nn.Linear(64, 4)), compression=0.3)
        >>> [type(layer).__name__ for layer in zoo.deploy(compressed.model)]
        ['Linear', 'ReLU', 'FactorChain', 'ReLU', 'Linear']
    """
    return fold(model)
