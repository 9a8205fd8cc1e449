"""The calibration of a network, as its card states it."""

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReliabilityBin(_Record):
    """Images of similar confidence: their mean confidence, their accuracy, both in 0..1, and how many they are."""

    confidence: float = Field(ge=0, le=1)
    accuracy: float = Field(ge=0, le=1)
    n: int = Field(ge=1)


class Calibration(_Record):
    """How well confidences match accuracies; see `zoo.evaluation.calibration`.

    Attributes:
        ece: expected calibration error in 0..1: the mean difference of confidence and accuracy over the bins.
        bins: of the reliability diagram, those with images, by confidence.
        coverage: (share of the images answered, the most confident first, accuracy on these), both in 0..1.
        n: clean test images.
    """

    ece: float = Field(ge=0, le=1)
    bins: tuple[ReliabilityBin, ...]
    coverage: tuple[tuple[float, float], ...]
    n: int = Field(ge=1)
