"""Interval rules: one entry of `RULES` per operation.

A rule gets the operation and its arguments by name, intervals as `Interval` and constants as they are (tensors
in float64), and returns the result's `Interval` (or a list of them), or None if it knows no bound.
"""

from zoo.certificates.graph import REARRANGE
from zoo.certificates.interval import elementwise, layers, normalization
from zoo.certificates.interval.elementwise import Rule, turning

INCREASE = """
    relu relu6 hardtanh clamp clamp_min clamp_max maximum minimum sigmoid hardsigmoid log_sigmoid tanh erf exp
    expand repeat cat stack pad mean sum amax amin
    max_pool1d max_pool2d max_pool3d avg_pool1d adaptive_avg_pool1d adaptive_avg_pool2d
    upsample_nearest2d upsample_bilinear2d
"""
"""Operations that increase with every entry of their arguments."""
TURN_AT_ZERO = "neg abs square leaky_relu prelu _prelu_kernel elu selu celu"
"""Functions that are monotone on either side of 0."""
COPY = "to _to_copy detach alias clone contiguous"
"""Operations that change no number, apart from rounding."""

RULES: dict[str, Rule] = {
    **dict.fromkeys((REARRANGE + INCREASE).split(), elementwise.increasing),
    **dict.fromkeys(("view", "_unsafe_view"), elementwise.view),
    **dict.fromkeys(("max_pool2d_with_indices", "adaptive_max_pool2d"), elementwise.maximum_and_index),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d"), elementwise.average_pool),
    **dict.fromkeys(COPY.split(), elementwise.unchanged),
    "dropout": elementwise.dropout,
    **dict.fromkeys(TURN_AT_ZERO.split(), turning(0.0)),
    # The others fall to their minimum and rise from there.
    "silu": turning(-1.2784645427610738),
    "mish": turning(-1.1924312145154954),
    "hardswish": turning(-1.5),
    "gelu": elementwise.gelu,
    "softplus": elementwise.softplus,
    "pow": elementwise.power,
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "rsub": elementwise.subtract_from,
    "mul": elementwise.multiply,
    "div": elementwise.divide,
    **dict.fromkeys(("softmax", "_softmax"), elementwise.softmax),
    "linear": layers.linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), layers.convolution),
    **dict.fromkeys(("matmul", "mm", "bmm"), layers.matmul),
    "batch_norm": normalization.batch_norm,
    "_native_batch_norm_legit_no_training": normalization.batch_norm_no_training,
    "layer_norm": normalization.layer_norm,
    "group_norm": normalization.group_norm,
}
