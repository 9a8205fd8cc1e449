"""A run's network in the forms that figures are measured on, each built once."""

from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from zoo.evaluation import OUTCOMES, Outcomes, folded, identity
from zoo.runs.card import Card
from zoo.runs.run import Run


class MeasuredNetwork:
    """A run's network as trained, deployed and folded.

    Args:
        run: whose weights it has.
        verdicts: file that keeps the verdicts on n images, with n in its name, so that an interrupted measurement
            resumes; None: they are not kept.
        evaluated_in: RUN folder of an evaluation, whose verdicts on these very weights and images are taken over.
    """

    def __init__(self, run: Run, verdicts: Path | None = None, evaluated_in: Path | None = None) -> None:
        self.run, self.verdicts, self.evaluated_in = run, verdicts, evaluated_in

    @property
    def card(self) -> Card:
        """The run's card."""
        return self.run.card

    @cached_property
    def trained(self) -> nn.Module:
        """The trained form, U, S and V separate."""
        return self.run.trained_model()

    @cached_property
    def deployed(self) -> nn.Module:
        """The deployed form, plain layers."""
        return self.run.method.deploy(self.trained).eval()

    @cached_property
    def exported(self) -> nn.Module:
        """The function of its exported file, with BatchNorm folded."""
        return folded(self.deployed, self.card.image_shape)

    def outcomes(self, images: Tensor, labels: Tensor) -> Outcomes:
        """Return the verdicts on images that there are already, which is also where new ones are kept."""
        owner = identity(self.card.weights.sha256, images, labels)
        path = self.verdicts and self.verdicts.with_stem(f"{self.verdicts.stem}-{len(labels)}")
        outcomes = Outcomes(path, owner)
        if self.evaluated_in is not None:
            outcomes.take_over(Outcomes(self.evaluated_in / OUTCOMES, owner))
        return outcomes
