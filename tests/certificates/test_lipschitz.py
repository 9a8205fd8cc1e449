"""The Lipschitz bound is never below what is measured, and exact where it can be."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.backbone import create_backbone, with_normalization
from zoo.certificates.lipschitz.windows import adaptive, overlap, sliding
from zoo.evaluation import lipschitz_bound
from zoo.lowrank.factorize import factorize, fold

SHAPE = (2, 6, 6)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def bound(model: nn.Module, shape: tuple[int, int, int] = SHAPE) -> float:
    found = lipschitz_bound(model.double().eval(), shape)
    assert found.value is not None, found.obstacle
    return found.value


def measured(model: nn.Module, shape: tuple[int, int, int] = SHAPE, tries: int = 4) -> float:
    """The largest of some difference quotients and of the Jacobian's norm at some images."""
    model = model.double().eval()
    largest = 0.0
    for _ in range(tries):
        x = 2 * torch.rand(1, *shape, dtype=torch.float64) - 0.5
        y = x + torch.randn_like(x) * 10 ** (-4 * torch.rand(1).item())
        largest = max(largest, ((model(x) - model(y)).norm() / (x - y).norm()).item())
        jacobian: Tensor = torch.autograd.functional.jacobian(model, x)  # type: ignore[assignment]
        matrix = jacobian.reshape(-1, math.prod(shape))
        largest = max(largest, torch.linalg.matrix_norm(matrix, 2).item())
    return largest


def spectral(weight: Tensor) -> float:
    return torch.linalg.matrix_norm(weight.detach().double().flatten(1), 2).item()


def randomise_norms(model: nn.Module) -> nn.Module:
    """Give every batch normalisation statistics and scales unlike 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.2, 2)
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.weight)
    return model


# Exact values.


def test_a_linear_layer_has_its_spectral_norm():
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 5))
    assert bound(model) == pytest.approx(spectral(model[1].weight), rel=1e-9)
    assert bound(model) == pytest.approx(measured(model), rel=1e-9)


def test_linear_layers_in_a_row_have_the_norm_of_their_product():
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 9, bias=False), nn.Linear(9, 5))
    assert bound(model) == pytest.approx(spectral(model[2].weight @ model[1].weight), rel=1e-9)


def test_normalisation_counts_with_the_smallest_standard_deviation():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 5))
    plain = bound(backbone)
    assert bound(with_normalization(backbone, (0.5, 0.4), (0.25, 0.2))) == pytest.approx(plain / 0.2, rel=1e-6)


def test_a_chain_of_convolutions_has_the_product_of_norms_and_overlaps():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()
    )
    expected = spectral(model[0].weight) * 3 * spectral(model[2].weight) * 2
    assert bound(model) == pytest.approx(expected, rel=1e-9)


def test_batch_norm_and_a_pointwise_convolution_are_merged_with_the_convolution_before():
    torch.manual_seed(0)
    model = randomise_norms(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))).eval()
    scale = model[2].weight / (model[2].running_var + model[2].eps).sqrt()
    product = scale.view(-1, 1) * (model[1].weight.flatten(1) @ model[0].weight.flatten(1))
    assert bound(model) == pytest.approx(3 * spectral(product), rel=1e-6)


def test_pools_have_their_exact_norm():
    assert bound(nn.Sequential(nn.AdaptiveAvgPool2d(1))) == pytest.approx(1 / 6)
    assert bound(nn.Sequential(nn.AvgPool2d(2))) == pytest.approx(1 / 2)
    for pool in (nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AdaptiveAvgPool2d(4)):
        model = nn.Sequential(pool)
        assert bound(model) == pytest.approx(measured(model), rel=1e-9)
    assert bound(nn.Sequential(nn.MaxPool2d(2))) == 1
    assert bound(nn.Sequential(nn.MaxPool2d(3, 2, 1))) == 2


@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
def test_windows_are_those_of_unfold(size, kernel, stride, padding, dilation):
    assume(size + 2 * padding >= dilation * (kernel - 1) + 1)
    x = torch.arange(1.0, size + 1).view(1, 1, 1, size)
    columns = nn.functional.unfold(x, (1, kernel), (1, dilation), (0, padding), (1, stride))[0].T
    windows = sliding(size, len(columns), kernel, stride, padding, dilation)
    assert windows == [[int(v) - 1 for v in row if v > 0] for row in columns]
    if dilation == 1:
        assert overlap(windows) <= math.ceil(kernel / stride)


@given(size=st.integers(1, 20), out=st.integers(1, 20))
def test_adaptive_windows_are_those_of_pytorch(size, out):
    x = torch.rand(1, 1, size, dtype=torch.float64)
    expected = nn.functional.adaptive_avg_pool1d(x, out)[0, 0]
    means = torch.stack([x[0, 0, w].mean() for w in adaptive(size, out)])
    assert torch.allclose(means, expected)


# Soundness.

ACTIVATIONS = [
    nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.ELU, nn.SELU, nn.Mish, nn.PReLU,
    nn.Hardsigmoid, nn.ReLU6, nn.Softplus, lambda: nn.LeakyReLU(2.0), lambda: nn.GELU("tanh"), lambda: nn.Softmax(1),
]  # fmt: skip


@st.composite
def layers(draw: st.DrawFn, channels: int) -> tuple[nn.Module, int]:
    """A random layer on at least 4 x 4 positions that keeps the extent, and how many channels it makes."""
    kind = draw(st.sampled_from(["conv", "depthwise", "same", "norm", "pool", "activation", "residual"]))
    k, d, width = draw(st.sampled_from([1, 3])), draw(st.integers(1, 2)), draw(st.integers(1, 4))
    if kind == "conv":
        return nn.Conv2d(channels, width, k, padding=d * (k - 1) // 2, dilation=d), width
    if kind == "same":
        return nn.Conv2d(channels, width, 2, padding="same"), width
    if kind == "depthwise":
        return nn.Conv2d(channels, 2 * channels, k, padding=k // 2, groups=channels), 2 * channels
    if kind == "norm":
        return nn.BatchNorm2d(channels), channels
    if kind == "pool":
        return draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))(3, 1, 1), channels
    if kind == "activation":
        return draw(st.sampled_from(ACTIVATIONS))(), channels
    return Residual(nn.Conv2d(channels, channels, 3, padding=1)), channels


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    torch.manual_seed(draw(st.integers(0, 2**16)))
    channels, chain = SHAPE[0], []
    for _ in range(draw(st.integers(1, 5))):
        layer, channels = draw(layers(channels))
        chain.append(layer)
    ends = [
        [nn.AdaptiveAvgPool2d(draw(st.integers(1, 4))), nn.Flatten()],
        [nn.Conv2d(channels, 3, 3, stride=2), nn.ReLU(), nn.Flatten()],
        [nn.MaxPool2d(3, 2, ceil_mode=True), nn.Flatten()],
        [nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Flatten()],
    ]
    return randomise_norms(nn.Sequential(*chain, *draw(st.sampled_from(ends))))


class Residual(nn.Module):
    """x + f(x), changed in place through a view, with a constant factor and a detour through a concatenation."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y += x
        y.view(-1).mul_(1.5).tanh_()
        both = torch.cat([y, 0.5 * x], 1).flip(1)
        left, right = both.chunk(2, 1)
        return left - right / 3


@settings(max_examples=15, deadline=None)
@given(networks())
def test_the_bound_is_never_below_what_is_measured(model):
    assert bound(model) * (1 + 1e-9) >= measured(model)


class Beside(nn.Module):
    """Concatenates what each of some functions makes of the image."""

    def __init__(self, functions: list[nn.Module]) -> None:
        super().__init__()
        self.functions = nn.ModuleList(functions)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([f(x) for f in self.functions], 1)


def test_the_constants_of_the_activations_are_their_largest_slopes():
    functions = [make() for make in ACTIVATIONS if not isinstance(make(), nn.Softmax)]
    slopes = []
    for f in functions:
        x = torch.linspace(-8, 8, 160_001, dtype=torch.float64).view(-1, 1, 1, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(f.double()(x).sum(), x)
        slopes.append(gradient.abs().max().item())
    together = math.hypot(*slopes)
    assert together <= bound(Beside(functions)) <= 1.0005 * together


@pytest.mark.parametrize("arch", ["test_resnet", "test_byobnet"])
def test_the_bound_holds_for_whole_backbones(arch):
    torch.manual_seed(0)
    model = randomise_norms(with_normalization(create_backbone(arch, 4, (3, 16, 16)), (0.5,) * 3, (0.2,) * 3))
    found = lipschitz_bound(model.double().eval(), (3, 16, 16))
    if found.value is None:
        assert "mul" in found.obstacle  # squeeze and excite multiplies two activations
    else:
        assert found.value >= measured(model, (3, 16, 16), tries=2)


def test_the_deployed_form_has_the_bound_of_the_product():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 10))
    model = factorize(dense, {"0": 4, "3": 3})
    expected = 3 * spectral(model[0].weight) * spectral(model[3].weight)
    assert bound(fold(model), (8, 6, 6)) == pytest.approx(expected, rel=1e-5)


# No bound.


@pytest.mark.parametrize(
    ("model", "op"),
    [
        (nn.Sequential(nn.Flatten(2), nn.LayerNorm(36)), "layer_norm"),
        (nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(36, 2, 8, batch_first=True)), "layer_norm"),
        (nn.GLU(1), "glu|mul"),
    ],
)
def test_an_operation_without_a_finite_bound_is_named(model, op):
    found = lipschitz_bound(model.eval(), SHAPE)
    assert found.value is None
    assert any(name in found.obstacle for name in op.split("|")), found.obstacle


def test_a_product_of_activations_has_no_bound():
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.conv(x)

    assert lipschitz_bound(Gate().eval(), SHAPE).obstacle == "mul"


def test_a_model_that_cannot_be_traced_has_no_bound():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.sum() > 0 else x

    found = lipschitz_bound(Branching().eval(), SHAPE)
    assert found.value is None
    assert "cannot trace" in found.obstacle


def test_a_weight_that_is_computed_from_parameters_counts_as_computed():
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.weight / self.weight.norm(), self.bias)

    model = nn.Sequential(Standardised(2, 4, 3))
    assert bound(model) == pytest.approx(3 * spectral(model[0].weight / model[0].weight.norm()), rel=1e-9)
