"""The form of the merged network: dense, or factorized at given ranks, with bounded condition numbers or not."""

from dataclasses import dataclass

import torch
from torch import nn

from zoo.backbone import with_normalization
from zoo.budget import Budget
from zoo.constraints import BoundedSpectrum
from zoo.lowrank.factorize import Ranks
from zoo.merging.config import MergeConfig
from zoo.merging.rules import State
from zoo.methods import Method
from zoo.methods.dense import Dense
from zoo.methods.lowrank import Lowrank
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.runs.run import Run


@dataclass(frozen=True)
class Form:
    """How dense weights become a network of the runs' kind.

    Attributes:
        run: one of the runs, for architecture and normalisation.
        method: of the merged run.
        ranks: of its layers.
    """

    run: Run
    method: Method
    ranks: Ranks

    @classmethod
    def of(cls, runs: list[Run], config: MergeConfig) -> "Form":
        """Choose the form.

        Raises:
            UserError: the budget cannot be met.
        """
        options = {run.card.method_options.get("convolution", "matrix") for run in runs}
        form = {"convolution": options.pop()} if len(options) == 1 else {}
        taus = {run.card.method_options.get("tau") if run.card.method == "robust_lowrank" else None for run in runs}
        tau = config.tau if config.tau is not None else taus.pop() if len(taus) == 1 else None
        ranks = runs[0].card.ranks
        if tau is None and config.compression is None and not ranks:
            return cls(runs[0], Dense(), {})
        method = Lowrank(**form) if tau is None else RobustLowrank(tau=tau, **form)
        if config.compression is not None:
            dense = runs[0].dense_model().get_submodule("backbone")
            ranks = method.plan(dense, Budget(config.compression))
        return cls(runs[0], method, ranks)

    @torch.no_grad()
    def network(self, state: State) -> nn.Module:
        """Return dense weights in this form, in eval mode; images in [0, 1] to logits."""
        dense = self.run.dense_model().get_submodule("backbone")
        dense.load_state_dict(state)
        model = self.method.convert(dense, self.ranks)
        if isinstance(self.method, RobustLowrank):
            BoundedSpectrum(self.method.tau).project_if_outside_(model)
        return with_normalization(model, self.run.card.mean, self.run.card.std).eval()
