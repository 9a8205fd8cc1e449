"""Linear algebra of factors with orthonormal columns and of bounded spectra; all leading axes are batch axes."""

from zoo.linalg.padded import blocks, padded
from zoo.linalg.spectrum import clamp_each, clamp_spectrum, condition_number, product_singular_values
from zoo.linalg.stiefel import (
    householder_qr,
    orthonormality_error,
    random_stiefel,
    retract,
    retract_each,
    tangent,
    tangent_,
)

__all__ = [
    "blocks",
    "clamp_each",
    "clamp_spectrum",
    "condition_number",
    "householder_qr",
    "orthonormality_error",
    "padded",
    "product_singular_values",
    "random_stiefel",
    "retract",
    "retract_each",
    "tangent",
    "tangent_",
]
