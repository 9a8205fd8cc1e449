"""Keep the factors of a nested network ordered while a LightningModule trains."""

from collections.abc import Callable

import lightning.pytorch as pl
from torch.optim import Optimizer

from zoo.callbacks.retraction import OrthonormalRetraction
from zoo.callbacks.spectrum import SpectrumClamp
from zoo.constraints import OrderedOrthonormal, OrderedSpectrum
from zoo.lowrank.layers import Factorized, factorized_layers
from zoo.lowrank.sizes import sizes_of, start_statistics_


class OrderedRetraction(OrthonormalRetraction):
    """Retract U and V after each step so that their leading columns can change places; see `OrderedOrthonormal`."""

    def __init__(self) -> None:
        super().__init__(OrderedOrthonormal())


class OrderedClamp(SpectrumClamp):
    """Bound the condition numbers of a nested network and of the sizes that a step trained; see `OrderedSpectrum`.

    At the start of a training the statistics of every size are set to those of the largest network.

    Args:
        tau: >= 0; 0 makes all singular values of a layer equal.
    """

    def __init__(self, tau: float = 0.1) -> None:
        self.ordered = OrderedSpectrum(tau)
        super().__init__(tau, self.ordered)
        self._ranks: list[dict[Factorized, int]] = []
        self._drawn: Callable[[], tuple[int, ...]] = tuple

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the layers and the ranks of each size."""
        network, sizes = sizes_of(pl_module)
        layers = dict(factorized_layers(network))
        self._ranks = [{layers[name]: rank for name, rank in ranks.items()} for ranks in sizes.ranks]
        self._drawn = lambda: sizes.drawn or ()
        super().on_fit_start(trainer, pl_module)

    def project_(self, optimizer: Optimizer | None) -> None:
        """Clamp the whole cores, and those of the prefixes that the last step trained."""
        drawn = [self._ranks[i] for i in self._drawn()]
        self.ordered.prefixes = {layer: [ranks[layer] for ranks in drawn] for layer in (drawn[0] if drawn else ())}
        super().project_(optimizer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the statistics of every size, unless the training is resumed."""
        if trainer.ckpt_path is None:
            start_statistics_(pl_module)
