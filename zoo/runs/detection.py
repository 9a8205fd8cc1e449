"""How well a network's confidence tells its own data from other images, as its card states it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Detection(BaseModel):
    """The detection of another data set's images by one score; see `zoo.evaluation.ood`.

    Attributes:
        data: the other data set.
        score: ``msp``, the maximum softmax probability, or ``energy``, the log-sum-exp of the logits.
        auroc: probability that one of the network's own images has a larger score than one of the others, in 0..1.
        fpr95: share of the other images above the score that 95 % of its own images reach, in 0..1.
        n: clean test images of its own.
        n_other: of the other data set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: str
    score: Literal["msp", "energy"]
    auroc: float = Field(ge=0, le=1)
    fpr95: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    n_other: int = Field(ge=1)
