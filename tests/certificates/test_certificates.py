"""Every operation with a rule, called with other arguments than its defaults: the certificates hold, or there are none.

The tables below name each operation that `zoo.certificates.lipschitz` and `zoo.certificates.interval` know; a rule
without an entry fails here.
"""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.certificates import interval, lipschitz
from zoo.certificates.interval import IntervalNetwork
from zoo.evaluation import lipschitz_bound

aten = torch.ops.aten
Function = Callable[[Tensor], Tensor]

SHAPE = (2, 6, 6)
EPS = 0.2


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def constant(*shape: int) -> Tensor:
    """The same numbers of both signs, spread over (-1.5, 1.5), wherever they are asked for."""
    return 1.5 * (1 + 7.3 * torch.arange(math.prod(shape), dtype=torch.float64)).sin().view(shape)


W = constant(2, 2, 3, 3)
"""Of a convolution."""
P = constant(1, 2, 6, 6)
"""Of the shape of an image."""
MEAN, VAR = constant(2), constant(2).square() + 0.2

# Linear in the image, up to a constant.
LINEAR: dict[str, list[Function]] = {
    "view": [lambda x: x.view(1, -1), lambda x: x.view(3, 24)],
    "_unsafe_view": [lambda x: aten._unsafe_view(x, [4, 18])],
    "reshape": [lambda x: x.mT.reshape(6, -1)],
    "flatten": [lambda x: x.flatten(1, 2), lambda x: x.flatten(start_dim=2)],
    "permute": [lambda x: x.permute(0, 3, 1, 2)],
    "transpose": [lambda x: x.transpose(1, -1)],
    "t": [lambda x: aten.t(x[0, 0])],
    "squeeze": [lambda x: x.squeeze(0), lambda x: x.squeeze((0, 1))],
    "unsqueeze": [lambda x: x.unsqueeze(2)],
    "clone": [lambda x: x.clone(memory_format=torch.channels_last)],
    "contiguous": [lambda x: x.mT.contiguous(memory_format=torch.channels_last)],
    "alias": [aten.alias],
    "to": [lambda x: x.to(torch.float64, copy=True)],
    "_to_copy": [lambda x: aten._to_copy(x, memory_format=torch.channels_last)],
    "select": [lambda x: x.select(3, -2)],
    "slice": [lambda x: x[:, :, 1:5:2, -3:]],
    "split": [lambda x: torch.split(x, 4, 2)[1]],
    "split_with_sizes": [lambda x: torch.split(x, [1, 5], 3)[1]],
    "chunk": [lambda x: x.chunk(4, 3)[-1]],
    "unbind": [lambda x: x.unbind(1)[1]],
    "narrow": [lambda x: x.narrow(2, -3, 2)],
    "flip": [lambda x: x.flip((1, 3))],
    "roll": [lambda x: x.roll((1, -2), (1, 2)), lambda x: x.roll(5)],
    "pixel_shuffle": [lambda x: F.pixel_shuffle(x.repeat(1, 2, 1, 1), 2)],
    "pixel_unshuffle": [lambda x: F.pixel_unshuffle(x, 3)],
    "constant_pad_nd": [lambda x: aten.constant_pad_nd(x, [1, -2, 0, 3], 7.0)],
    "pad": [
        lambda x: F.pad(x, (2, -1), value=-3.0),
        *(partial(F.pad, pad=(4, 3, 2, 1), mode=m) for m in ("reflect", "replicate", "circular")),
    ],
    "neg": [torch.neg],
    "add": [
        lambda x: torch.add(P, x, alpha=-3),
        lambda x: torch.add(x[:, :1], x, alpha=2),
        lambda x: torch.add(x, 2, alpha=5),
    ],
    "sub": [
        lambda x: torch.sub(P, x, alpha=3),
        lambda x: torch.sub(x, x.mT, alpha=-2),
        lambda x: torch.sub(x[..., :1], P, alpha=2),
    ],
    "rsub": [
        lambda x: torch.rsub(x, x.flip(1), alpha=5),
        lambda x: torch.rsub(x, P, alpha=-4),
        lambda x: torch.rsub(P, x, alpha=9),
        lambda x: torch.rsub(x[:, :1], 1, alpha=0.2),
    ],
    "mul": [lambda x: P * x[:, 1:], lambda x: x * -4],
    "div": [lambda x: x / P, lambda x: x[:, :1] / P, lambda x: x / -0.1, lambda x: torch.div(x, 2, rounding_mode=None)],
    "expand": [lambda x: x[:, :1].expand(3, 4, 6, 6)],
    "repeat": [lambda x: x.repeat(2, 1, 3, 1)],
    "mean": [lambda x: x.mean(), lambda x: x.mean((0, 2), keepdim=True), lambda x: x.mean(1, dtype=torch.float64)],
    "sum": [lambda x: x.sum(), lambda x: x.sum((-1, 1)), lambda x: x.sum(2, dtype=torch.float64)],
    "cat": [lambda x: torch.cat([x, 2 * x, P], 2)],
    "stack": [lambda x: torch.stack([x, P, -x, x], -1)],
    "linear": [
        lambda x: F.linear(x, constant(4, 6)),
        lambda x: F.linear(x[0, 0, 0], constant(4, 6), constant(4)),
        lambda x: F.linear(F.linear(x, constant(4, 6)), constant(5, 4)),
    ],
    "conv1d": [lambda x: F.conv1d(x[0], constant(4, 3, 2), None, 2, 1, 2, 2)],
    "conv2d": [
        lambda x: F.conv2d(x, W, constant(2), (2, 1), (0, 2), (1, 2)),
        lambda x: F.conv2d(x, constant(4, 1, 3, 3), None, 1, "same", 2, groups=2),
        lambda x: F.conv2d(x, constant(3, 2, 2, 4), padding="valid"),
        lambda x: F.conv2d(F.conv2d(x, W), constant(5, 2, 1, 1), constant(5), 2, 3),
        lambda x: F.conv2d(F.conv2d(x, constant(4, 1, 3, 3), groups=2), constant(5, 4, 1, 1)),
        lambda x: F.conv2d(F.conv2d(x, W), constant(4, 1, 1, 1), groups=2),
        lambda x: F.conv2d(x[0], W, padding=1),
    ],
    "conv3d": [lambda x: F.conv3d(x[None], constant(2, 1, 1, 3, 2), None, (1, 2, 1), (1, 0, 1), (1, 1, 3))],
    "batch_norm": [
        lambda x: F.batch_norm(x, MEAN, VAR, constant(2), None, eps=2.0),
        lambda x: F.batch_norm(F.conv2d(x, W), MEAN, VAR, None, constant(2)),
        lambda x: F.batch_norm(F.linear(x, constant(4, 6)), MEAN, VAR, constant(2)),
        lambda x: F.batch_norm(F.conv2d(x[0, :, :, :4], W[..., :1, :]).mT, constant(2), VAR),
        lambda x: F.batch_norm(x, MEAN, VAR, training=True),
        lambda x: F.batch_norm(x, None, None, training=True),
    ],
    "_native_batch_norm_legit_no_training": [
        lambda x: aten._native_batch_norm_legit_no_training(x, constant(2), constant(2), MEAN, VAR, 0.5, 0.3)[0]
    ],
    "dropout": [lambda x: F.dropout(x, 0.9, training=False), lambda x: F.dropout(x, 0.9, training=True)],
    "avg_pool1d": [lambda x: F.avg_pool1d(x[0], 3, 2, 1, True, False)],
    "avg_pool2d": [
        lambda x: F.avg_pool2d(x, (3, 2), (1, 2), (1, 0), ceil_mode=True, count_include_pad=False),
        lambda x: F.avg_pool2d(x, 4, divisor_override=3, stride=1, padding=2),
        lambda x: F.avg_pool2d(x, 3, 1, divisor_override=-2),
        lambda x: F.avg_pool2d(x[0], (5, 3), (1, 2), 1),
        lambda x: F.avg_pool2d(x[0, :, :5], 2, 2, ceil_mode=True),
    ],
    "avg_pool3d": [
        lambda x: F.avg_pool3d(x, 2, 1, divisor_override=-3),
        lambda x: F.avg_pool3d(x, (1, 3, 2), 2, (0, 1, 1), True, False),
    ],
    "adaptive_avg_pool1d": [lambda x: F.adaptive_avg_pool1d(x[0], 4)],
    "adaptive_avg_pool2d": [
        lambda x: F.adaptive_avg_pool2d(x, (4, None)),
        lambda x: F.adaptive_avg_pool2d(x[0], (1, 5)),
    ],
    "upsample_nearest2d": [lambda x: F.interpolate(x, scale_factor=(1.5, 2)), lambda x: F.interpolate(x, (4, 9))],
    "upsample_bilinear2d": [
        partial(F.interpolate, size=(9, 4), mode="bilinear", align_corners=a) for a in (False, True)
    ],
    "matmul": [lambda x: constant(5, 6) @ x],
    "mm": [lambda x: torch.mm(x[0, 0], constant(6, 3))],
    "bmm": [lambda x: torch.bmm(x[0], constant(2, 6, 3))],
}

CURVED: dict[str, list[Function]] = {
    "relu": [lambda x: F.relu(x - 0.4)],
    "relu6": [lambda x: F.relu6(20 * x - 7)],
    "hardtanh": [lambda x: F.hardtanh(x, 0.2, 0.5), lambda x: F.hardtanh(x, -4, 0.5)],
    "clamp": [
        lambda x: x.clamp(max=0.5),
        lambda x: x.clamp(0.7, 0.3),
        lambda x: torch.clamp(constant(3, 2, 6, 6), min=x),
        lambda x: torch.clamp(x[:, :1], min=constant(3, 2, 6, 6)),
        lambda x: torch.clamp(P, x - 0.1, x.mT),
        lambda x: torch.clamp(x, -x.mT, x.flip(1)),
        lambda x: torch.clamp(x, max=x.mean()),
    ],
    "clamp_min": [lambda x: torch.clamp_min(constant(5, 2, 6, 6), x), lambda x: torch.clamp_min(x, 0.4)],
    "clamp_max": [lambda x: torch.clamp_max(constant(5, 2, 6, 6), x), lambda x: torch.clamp_max(x, x.mT)],
    "maximum": [lambda x: torch.maximum(x, 1 - x)],
    "minimum": [lambda x: torch.minimum(x, P)],
    "tanh": [torch.tanh],
    "abs": [lambda x: (x - 0.5).abs()],
    "square": [lambda x: (x - 0.5).square()],
    "amax": [lambda x: x.amax(), lambda x: x.amax((1, 3), keepdim=True)],
    "amin": [lambda x: x.amin((0, -1))],
    "sigmoid": [lambda x: torch.sigmoid(3 * x)],
    "hardsigmoid": [lambda x: F.hardsigmoid(20 * x - 10)],
    "log_sigmoid": [F.logsigmoid],
    "erf": [torch.erf],
    "exp": [torch.exp],
    "pow": [lambda x: x**3, lambda x: x**2.5, lambda x: (x - 0.5) ** -2, lambda x: torch.pow(2.0, x), lambda x: x**x],
    "softmax": [lambda x: 3 * x.softmax(2), lambda x: torch.softmax(9 * x, 0, dtype=torch.float64)],
    "_softmax": [lambda x: aten._softmax(5 * x, 1, False)],
    "gelu": [lambda x: F.gelu(6 * x - 3), lambda x: F.gelu(6 * x - 3, approximate="tanh")],
    "silu": [lambda x: F.silu(9 * x - 5)],
    "mish": [lambda x: F.mish(9 * x - 5)],
    "hardswish": [lambda x: F.hardswish(9 * x - 5)],
    "leaky_relu": [lambda x: F.leaky_relu(x - 0.5, 3.0), lambda x: F.leaky_relu(x - 0.5, -2.0)],
    "prelu": [lambda x: F.prelu(x - 0.5, constant(2)), lambda x: F.prelu(P, 3 * x[0, :, 0, 0])],
    "_prelu_kernel": [lambda x: aten._prelu_kernel(x - 0.5, constant(1, 2, 1, 1)), lambda x: aten._prelu_kernel(P, x)],
    "selu": [lambda x: F.selu(x - 0.5)],
    "elu": [
        lambda x: F.elu(x - 0.5, 4.0),
        lambda x: F.elu(x - 0.5, -0.7),
        lambda x: aten.elu(x - 0.5, 2.0, -3.0, 1.5),
        lambda x: aten.elu(8 * x - 4, 1.0, 1.0, -1.0),
    ],
    "celu": [lambda x: F.celu(x - 0.5, 0.1), lambda x: F.celu(x - 0.5, -0.3)],
    "softplus": [
        lambda x: F.softplus(x - 0.5, 4.0),
        lambda x: F.softplus(9 * x - 5, 1, 0.5),
        lambda x: F.softplus(x, -2.0),
        lambda x: F.softplus(9 * x - 5, -1.0, 2.0),
        lambda x: F.softplus(x - 0.5, 1, -3.0),
    ],
    "max_pool1d": [lambda x: F.max_pool1d(x[0], 3, 1, 1, 2)],
    "max_pool2d": [
        lambda x: F.max_pool2d(x, 3, 1, 1),
        lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 0), (2, 1), True),
        lambda x: F.max_pool2d(x[0], 3, 1),
        lambda x: F.max_pool2d(x[0, :, :5], (1, 4), (1, 1), (0, 2)),
    ],
    "max_pool2d_with_indices": [
        lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)[0],
        lambda x: F.max_pool2d(x, 3, 2, return_indices=True)[1].double(),
    ],
    "max_pool3d": [lambda x: F.max_pool3d(x, (1, 3, 2), 1, (0, 1, 1))],
    "adaptive_max_pool2d": [
        lambda x: F.adaptive_max_pool2d(x, (4, 1)),
        lambda x: F.adaptive_max_pool2d(x[0], 4),
        lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)[1].double(),
    ],
    "layer_norm": [
        lambda x: F.layer_norm(x, (6, 6), P[0, 0], eps=0.3),
        lambda x: F.layer_norm(x, (6,), None, constant(6), 0.0),
        lambda x: F.layer_norm(P, (6,), x[0, 0, 0]),
        lambda x: F.layer_norm(x, (6,), eps=-1e-3),
    ],
    "group_norm": [lambda x: F.group_norm(x, 2, constant(2), None, 0.2), lambda x: F.group_norm(P, 1, x[0, :, 0, 0])],
    "mul": [lambda x: x * x.mT],
    "div": [
        lambda x: torch.div(5 * x, P, rounding_mode="floor"),
        lambda x: torch.div(9 * x, 1, rounding_mode="trunc"),
        lambda x: 1 / (x + 0.5),
    ],
    "view": [lambda x: x.float().view(torch.bfloat16).double()],
    "to": [
        lambda x: (9 * x).to(torch.int64).double(),
        lambda x: (9 * x).long().to(x),
        lambda x: x.to(torch.float8_e5m2).to(x),
    ],
    "_to_copy": [lambda x: aten._to_copy(9 * x, dtype=torch.int32) * 1.0],
    "sum": [lambda x: (9 * x).sum(1, dtype=torch.int64).double()],
    "linear": [
        lambda x: F.linear(P, constant(4, 6), 9 * x[0, 0, 0, :4]),
        lambda x: F.linear(x, x[0, 0], 9 * x[0, 0, 0]),
        lambda x: F.linear(x, constant(6, 6), 9 * x[0, 0, 0]),
    ],
    "conv2d": [lambda x: F.conv2d(x, W, 9 * x[0, :, 0, 0]), lambda x: F.conv2d(P, x)],
    "batch_norm": [
        lambda x: F.batch_norm(x, MEAN, VAR, x[0, :, 0, 0]),
        lambda x: F.batch_norm(x, MEAN, VAR, None, 9 * x[0, :, 0, 0]),
        lambda x: F.batch_norm(x, 9 * x[0, :, 0, 0], VAR),
        lambda x: F.batch_norm(P, MEAN, x[0, :, 0, 0]),
    ],
    "matmul": [lambda x: x @ x.mT, lambda x: x.softmax(3) @ (x - 0.5)],
    "detach": [lambda x: x.square().detach()],
}


class Applied(nn.Module):
    """A function as a network."""

    def __init__(self, *functions: Function) -> None:
        super().__init__()
        self.functions = functions
        self.like = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        for f in self.functions:
            x = f(x)
        return x


def images(n: int) -> list[Tensor]:
    return [0.3 + 0.4 * torch.rand(1, *SHAPE, dtype=torch.float64) for _ in range(n)]


def jacobian(f: Function, x: Tensor) -> Tensor:
    """(outputs, pixels), exact."""
    found: Tensor = torch.autograd.functional.jacobian(f, x)  # type: ignore[assignment]
    return found.reshape(-1, math.prod(SHAPE))


def steepest(f: Function) -> float:
    """The largest difference quotient over some pairs of images, the closest of which show a jump."""
    largest = 0.0
    for i, x in enumerate(images(12)):
        y = x + torch.randn_like(x) * 10 ** (-i / 2)
        largest = max(largest, ((f(x) - f(y)).norm() / (x - y).norm()).item())
    return largest


def id_of(value: object) -> str | None:
    return value if isinstance(value, str) else None


ENTRIES = [(name, f) for table in (LINEAR, CURVED) for name, functions in table.items() for f in functions]


def test_every_rule_of_either_certificate_has_an_entry():
    assert set(lipschitz.RULES) | set(interval.RULES) == set(LINEAR) | set(CURVED)


@pytest.mark.parametrize(("name", "f"), ENTRIES, ids=id_of)
def test_no_lipschitz_bound_is_below_what_is_measured(name, f):
    torch.manual_seed(0)
    found = lipschitz_bound(Applied(f).eval(), SHAPE)
    if found.value is not None:
        assert found.value * (1 + 1e-9) >= steepest(f)
        if name in LINEAR and f in LINEAR[name]:
            exact = torch.linalg.matrix_norm(jacobian(f, images(1)[0]), 2).item()
            assert found.value * (1 + 1e-9) >= exact
    else:
        assert found.obstacle


@pytest.mark.parametrize(("name", "f"), ENTRIES, ids=id_of)
def test_no_interval_leaves_out_an_output(name, f):
    torch.manual_seed(0)
    model = Applied(f, flat).eval()
    network = IntervalNetwork(model, SHAPE)
    if network.obstacle:
        return
    x = images(1)[0]
    lower, upper = network.bounds(x - EPS, x + EPS)
    for i in range(40):
        noise = 2 * torch.rand_like(x) - 1
        output = model(x + EPS * (noise.sign() if i % 2 else noise))
        slack = 1e-9 * (1 + output.abs())
        assert (lower <= output + slack).all()
        assert (output - slack <= upper).all()


def flat(x: Tensor) -> Tensor:
    return x.reshape(1, -1)


def mixed(f: Function, alpha: float) -> Function:
    """Keep the shape: what f makes goes through a constant matrix, and alpha times the input is taken off."""

    def apply(x: Tensor) -> Tensor:
        y = flat(f(x))
        matrix = constant(math.prod(SHAPE), y.numel()) / y.numel()
        return torch.rsub(x, F.linear(y, matrix).reshape(x.shape), alpha=alpha)

    return apply


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([f for name, functions in LINEAR.items() for f in functions if name != "dropout"]),
            st.floats(-3, 3),
        ),
        min_size=1,
        max_size=2,
    )
)
def test_bounds_of_linear_programs_hold_against_the_exact_jacobian(steps):
    model = Applied(*(mixed(f, alpha) for f, alpha in steps[:-1]), steps[-1][0], flat).eval()
    x = images(1)[0]
    exact = jacobian(model, x)
    bound = lipschitz_bound(model, SHAPE).value
    assert bound is None or bound * (1 + 1e-9) >= torch.linalg.matrix_norm(exact, 2).item()
    network = IntervalNetwork(model, SHAPE)
    if not network.obstacle:
        lower, upper = network.bounds(x - EPS, x + EPS)
        centre, reach = model(x), EPS * exact.abs().sum(1)
        slack = 1e-9 * (1 + centre.abs() + reach)
        assert (lower <= centre - reach + slack).all()
        assert (upper >= centre + reach - slack).all()
