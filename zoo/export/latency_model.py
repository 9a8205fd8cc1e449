"""Estimated cost of a layer in each of its forms, for a target that is not available.

The model has four terms, in units of one multiply-accumulate at full speed: the arithmetic, the values that pass
through memory, those that change their layout, and a fixed price per operator. They were fitted to times of ONNX
Runtime on a CPU with AVX-512; the tests compare the order that they predict with measured times.
"""

from collections.abc import Sequence

from zoo.export.forms import Form, Geometry, Op, Two

BLOCK = 16
"""Input channels that fast kernels take at once: 16 of AVX-512, and a multiple of AVX2's and tensor cores' 8."""
TRAFFIC = 10.0
"""Multiply-accumulates in the time that one value takes through memory: a weight read, an activation in or out."""
REORDER = 100.0
"""The same for a value that changes between the blocked and the plain layout: a convolution with more input channels
than a block, and not a multiple of it, is computed in the plain layout."""
OPERATOR = 300_000.0
"""Multiply-accumulates in the fixed time of an operator."""


def estimated_cost(problem: Geometry, forms: Sequence[Form]) -> list[float]:
    """Return the cost of each form, in millions of multiply-accumulates at full speed, for one image."""
    return [_cost(problem, form) / 1e6 for form in forms]


def _cost(problem: Geometry, form: Form) -> float:
    total, size = 0.0, problem.size
    for op in problem.ops(form):
        after = op.output_size(size)
        total += _op_cost(op, size, after, blocked=problem.kind == "conv")
        size = after
    return total


def _op_cost(op: Op, before: Two, after: Two, blocked: bool) -> float:
    weights = op.inputs * op.outputs * op.kernel[0] * op.kernel[1]
    read, written = before[0] * before[1] * op.inputs, after[0] * after[1] * op.outputs
    cost = after[0] * after[1] * weights + TRAFFIC * (read + written + weights) + OPERATOR
    aligned = op.inputs % BLOCK == 0 or op.inputs < BLOCK
    return cost + REORDER * (read + written) if blocked and not aligned else cost
