"""Linear algebra of factors with orthonormal columns and of bounded spectra; all leading axes are batch axes."""

from zoo.linalg.spectrum import clamp_spectrum, condition_number
from zoo.linalg.stiefel import (
    cholesky_qr,
    householder_qr,
    orthonormality_error,
    random_stiefel,
    retract,
    tangent,
)

__all__ = [
    "cholesky_qr",
    "clamp_spectrum",
    "condition_number",
    "householder_qr",
    "orthonormality_error",
    "random_stiefel",
    "retract",
    "tangent",
]
