"""Store weights in half the bytes."""

from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from zoo.errors import UserError
from zoo.files import atomic, sha256
from zoo.runs.records import Weights
from zoo.runs.run import WEIGHTS, Run

Dtype = Literal["float16", "float32"]


def store_weights(run: Run, folder: Path, dtype: Dtype) -> Weights:
    """Write a run's weights as safetensors; matrices and kernels get the dtype, vectors (biases, norms) stay fp32.

    Args:
        run: in its trained form.
        folder: to write to.
        dtype: of tensors with more than one axis.

    Raises:
        UserError: a weight is not finite, or too large for fp16.
    """
    state = {name: _stored(name, value, dtype) for name, value in run.trained_model().state_dict().items()}
    path = folder / WEIGHTS
    with atomic(path) as temporary:
        save_file(state, temporary)
    return Weights(file=WEIGHTS, sha256=sha256(path), bytes=path.stat().st_size, dtype=dtype)


def _stored(name: str, value: Tensor, dtype: Dtype) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value
    kept = value.half() if dtype == "float16" and value.ndim > 1 else value
    if not torch.isfinite(kept).all():
        finite = bool(torch.isfinite(value).all())
        raise UserError(f"{name} {'exceeds fp16: publish with --dtype float32' if finite else 'is not finite'}")
    return kept
