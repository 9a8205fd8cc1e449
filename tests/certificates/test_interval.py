"""Interval bounds hold at every point of the ball, are exact where they can be, and certify no image that falls."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.attacks.pgd import PGD
from zoo.backbone import create_backbone, with_normalization
from zoo.certificates.interval import IntervalNetwork
from zoo.errors import UserError
from zoo.lowrank.factorize import factorize, fold
from zoo.probes import ProbeContext, interval, lipschitz
from zoo.probes.interval import IntervalBounds
from zoo.probes.lipschitz import LipschitzRadius

SHAPE = (2, 6, 6)


def traced(model: nn.Module, shape: tuple[int, int, int] = SHAPE) -> IntervalNetwork:
    network = IntervalNetwork(model.eval(), shape)
    assert network.obstacle == ""
    return network


def inner_images(n: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Images whose balls lie within [0, 1]."""
    return 0.3 + 0.4 * torch.rand(n, *shape, dtype=torch.float64)


def bounds(model: nn.Module, images: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return traced(model, images.shape[1:]).bounds(images - eps, images + eps)


def randomise_norms(model: nn.Module) -> nn.Module:
    """Give every normalisation statistics and weights unlike 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.2, 2)
            nn.init.normal_(module.running_mean)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model


# Soundness.

ACTIVATIONS = [
    nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.PReLU,
    nn.Hardsigmoid, nn.ReLU6, nn.Softplus, nn.LogSigmoid, nn.LeakyReLU, lambda: nn.LeakyReLU(-0.5),
    lambda: nn.GELU("tanh"), lambda: nn.SiLU(inplace=True), lambda: nn.ELU(-0.7), lambda: nn.Hardtanh(-0.3, 0.4),
]  # fmt: skip


class Residual(nn.Module):
    """x + f(x), changed in place through a view, with a square, constants and a detour through a concatenation."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y += x
        y.view(-1).mul_(-1.5).tanh_()
        both = torch.cat([y.square(), 0.5 * x, torch.ones_like(self.inner.bias).view(1, -1, 1, 1) - y], 1)
        left, middle, right = both.flip(1).chunk(3, 1)
        return torch.maximum(1 - left, right / -3) - middle.abs().clamp(max=0.3) ** 3


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Attention(nn.Module):
    """Every position looks at every other one, and itself is standardised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        return ((tokens @ tokens.mT).softmax(-1) @ tokens).mT.reshape(x.shape).contiguous()


@st.composite
def layers(draw: st.DrawFn, channels: int) -> tuple[nn.Module, int]:
    """A random layer that keeps the extent, and how many channels it makes."""
    kinds = ["conv", "pointwise", "depthwise", "batch", "group", "pool", "activation", "residual", "gate", "attention"]
    kind = draw(st.sampled_from(kinds))
    k, d, width = draw(st.sampled_from([1, 3])), draw(st.integers(1, 2)), draw(st.integers(1, 4))
    makes: dict[str, tuple[nn.Module, int]] = {
        "conv": (nn.Conv2d(channels, width, k, padding=d * (k - 1) // 2, dilation=d, padding_mode="reflect"), width),
        "pointwise": (nn.Conv2d(channels, width, 1, bias=False), width),
        "depthwise": (nn.Conv2d(channels, 2 * channels, k, padding="same", groups=channels), 2 * channels),
        "batch": (nn.BatchNorm2d(channels), channels),
        "group": (nn.GroupNorm(1, channels), channels),
        "pool": (draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))(3, 1, 1), channels),
        "activation": (draw(st.sampled_from(ACTIVATIONS))(), channels),
        "residual": (Residual(nn.Conv2d(channels, channels, 3, padding=1)), channels),
        "gate": (Gate(channels), channels),
        "attention": (Attention(channels), channels),
    }
    return makes[kind]


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    torch.manual_seed(draw(st.integers(0, 2**16)))
    channels, chain = SHAPE[0], []
    for _ in range(draw(st.integers(1, 5))):
        layer, channels = draw(layers(channels))
        chain.append(layer)
    ends = [
        [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 6, bias=False), nn.Linear(6, 3)],
        [nn.Conv2d(channels, 3, 3, stride=2), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.MaxPool2d(2), nn.Flatten()],
        [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, 5), nn.BatchNorm1d(5), nn.Dropout()],
        [nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Flatten()],
    ]
    return randomise_norms(nn.Sequential(*chain, *draw(st.sampled_from(ends)))).double().eval()


@settings(max_examples=25, deadline=None)
@given(networks(), st.sampled_from([0.0, 1e-3, 0.05, 0.3]))
def test_the_outputs_of_every_point_in_the_ball_lie_in_the_interval(model, eps):
    images = inner_images(2)
    lower, upper = bounds(model, images, eps)
    for i in range(40):
        noise = 2 * torch.rand_like(images) - 1
        outputs = model(images + eps * (noise.sign() if i % 2 else noise))
        slack = 1e-9 * (1 + outputs.abs())  # and the fall of softplus
        assert (lower <= outputs + slack).all()
        assert (outputs - slack <= upper).all()
    if eps == 0:
        assert torch.allclose(upper - lower, torch.zeros_like(lower), atol=1e-7)


@pytest.mark.parametrize("arch", ["test_resnet", "test_byobnet", "test_efficientnet"])
def test_the_bounds_of_whole_backbones_hold(arch):
    model = randomise_norms(with_normalization(create_backbone(arch, 10, (3, 32, 32)), (0.5,) * 3, (0.2,) * 3))
    model = model.double().eval()
    images, eps = inner_images(2, (3, 32, 32)), 1e-4
    lower, upper = bounds(model, images, eps)
    assert upper.isfinite().all()
    assert (lower < upper).all()
    for _ in range(4):
        outputs = model(images + eps * torch.randn_like(images).sign())
        assert ((lower < outputs) & (outputs < upper)).all()


def test_an_overflow_certifies_nothing():
    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.cancel = nn.Linear(72, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x.flatten(1))
            for _ in range(2):
                y = (y - y) * 1e200  # is 0, between -inf and inf
            return nn.functional.hardsigmoid(self.cancel(y)) + torch.tensor([0.4, 0.0])

    images = inner_images(1)
    lower, upper = bounds(Overflow(), images, 0.1)
    assert torch.allclose(lower, torch.tensor([0.4, 0.0]).double())
    assert torch.allclose(upper, torch.tensor([1.4, 1.0]).double())
    assert not traced(Overflow()).certified(images, torch.tensor([0]), 0.1)


# Exact values.


def test_an_affine_layer_has_its_exact_range():
    images, eps = inner_images(3), 0.1
    for model in (
        nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 5)),
        nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.Flatten()),
        nn.Sequential(nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Flatten()),
        randomise_norms(nn.Sequential(nn.BatchNorm2d(2), nn.Flatten())),
        # With so large an eps they only subtract the mean and multiply.
        randomise_norms(nn.Sequential(nn.LayerNorm(6, eps=1e8), nn.Flatten())),
        randomise_norms(nn.Sequential(nn.GroupNorm(2, 2, eps=1e8), nn.Flatten())),
    ):
        model = model.double().eval()
        lower, upper = bounds(model, images, eps)
        jacobian: Tensor = torch.autograd.functional.jacobian(model, images[:1])  # type: ignore[assignment]
        reach = eps * jacobian[0, :, 0].abs().flatten(1).sum(1)
        assert torch.allclose(upper, model(images) + reach)
        assert torch.allclose(lower, model(images) - reach)


def test_a_network_that_increases_with_every_pixel_has_its_exact_range():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 3, 1), nn.Softplus(), nn.Flatten(),
        nn.Linear(12, 4),
    ).double()  # fmt: skip
    for parameter in model.parameters():
        parameter.data.abs_()
    images, eps = inner_images(3), 0.2
    lower, upper = bounds(model, images, eps)
    assert torch.allclose(lower, model(images - eps))
    assert torch.allclose(upper, model(images + eps))


@pytest.mark.parametrize("make", ACTIVATIONS)
def test_a_function_of_one_entry_has_its_exact_range(make):
    f = make().double()
    left, width = torch.meshgrid(torch.linspace(-8, 4, 13), torch.tensor([0.0, 0.1, 1, 4]), indexing="ij")
    lower, upper = (x.double().reshape(1, 1, -1) for x in (left, left + width))
    found = traced(nn.Sequential(f), (1, 1, lower.numel())).bounds(lower[None], upper[None])
    steps = torch.linspace(0, 1, 4001, dtype=torch.float64).view(-1, 1, 1, 1)
    values = f(lower + steps * (upper - lower))
    assert torch.allclose(found[0], values.amin(0), atol=1e-6)
    assert torch.allclose(found[1], values.amax(0), atol=1e-6)
    assert (found[0] <= values.amin(0) + 1e-15).all()
    assert (found[1] >= values.amax(0) - 1e-15).all()


def test_a_model_may_change_the_image_in_place():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(72, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.sub_(0.5).flatten(1))

    images = inner_images(2)
    plain = with_normalization(nn.Sequential(nn.Flatten(), (model := InPlace()).linear), (0.5, 0.5), (1, 1))
    for found, expected in zip(bounds(model, images, 0.1), bounds(plain, images, 0.1), strict=True):
        assert torch.allclose(found, expected)


@pytest.mark.parametrize("bias", [True, False])
def test_layers_that_only_multiply_have_the_range_of_their_product(bias):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=2, bias=bias), nn.BatchNorm2d(5), nn.Conv2d(5, 3, 1, bias=bias), nn.ReLU(),
        nn.Flatten(), nn.Linear(12, 9, bias=bias), nn.BatchNorm1d(9), nn.Linear(9, 4, bias=bias),
    )  # fmt: skip
    model = randomise_norms(model).double().eval()
    conv, linear = nn.Conv2d(2, 3, 3, stride=2).double(), nn.Linear(12, 4).double()
    first, second = model[:3], model[5:]
    with torch.no_grad():
        linear.bias.copy_(second(torch.zeros(1, 12).double())[0])
        linear.weight.copy_((second(torch.eye(12).double()) - linear.bias).T)
        conv.bias.copy_(first(torch.zeros(1, 2, 3, 3).double()).flatten())
        patches = torch.eye(18).double().view(18, 2, 3, 3)
        conv.weight.copy_((first(patches).flatten(1) - conv.bias).T.view_as(conv.weight))
    product = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    images = inner_images(2)
    assert torch.allclose(product(images), model(images))
    for found, expected in zip(bounds(model, images, 0.1), bounds(product, images, 0.1), strict=True):
        assert torch.allclose(found, expected)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(4, 3, 1)),
        (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 1, groups=2)),
        (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1, stride=2)),
        (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1, padding=1)),
        (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3)),
    ],
)
def test_convolutions_that_are_no_product_of_matrices_are_taken_one_by_one(first, second):
    images = inner_images(2)
    between = traced(first).bounds(images - 0.1, images + 0.1)
    expected = traced(second, between[0].shape[1:]).bounds(*between)
    for found, value in zip(bounds(nn.Sequential(first, second), images, 0.1), expected, strict=True):
        assert torch.allclose(found, value)


def test_the_deployed_form_has_the_bounds_of_the_product():
    dense = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 10))
    model = fold(factorize(dense, {"0": 4, "3": 3}))
    product = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 10))
    with torch.no_grad():
        for layer, pair in ((product[0], model[0]), (product[3], model[3])):
            layer.weight.copy_(pair.weight)
            layer.bias.copy_(pair.bias)
    images = inner_images(2, (8, 6, 6))
    for found, expected in zip(bounds(model, images, 0.01), bounds(product, images, 0.01), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


# Certificates.


def small_network(channels: int = 1, size: int = 8, classes: int = 4) -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(6 * (size // 2) ** 2, 8), nn.ReLU(), nn.Linear(8, classes),
    )  # fmt: skip
    return with_normalization(model, (0.5,) * channels, (0.1,) * channels).eval()


def context_of(model: nn.Module, n: int = 60, shape: tuple[int, int, int] = (1, 8, 8)) -> ProbeContext:
    """Random images, most of them with the label that the model gives them."""
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8)
    with torch.no_grad():
        logits = model(images / 255)
    labels = torch.where(torch.rand(n) < 0.8, logits.argmax(1), torch.randint(0, logits.shape[1], (n,)))
    return ProbeContext(model, images, labels, eps=0.03, batch_size=16)


def test_no_attack_breaks_a_certified_image():
    context = context_of(small_network())
    probe = IntervalBounds(eps=(0.001, 0.004, 0.02))
    shares = []
    for case in probe.cases(context):
        certified = probe.passed(context, case)
        attack = PGD(steps=20, restarts=3)
        robust = attack(context.model, context.images, context.labels, [float(case["eps"])]).robust[0]
        assert not (certified & ~robust).any()
        shares.append(certified.float().mean().item())
    assert context.correct(context.images).float().mean() >= shares[0] > shares[-1] >= 0
    assert shares == sorted(shares, reverse=True)


def test_the_ball_ends_at_black_and_white():
    """Only the last pixel counts, and it cannot get darker: a class that needs it darker is out of reach."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, -1]])
    network, black = traced(model, (1, 2, 2)), torch.zeros(1, 1, 2, 2)
    lower = network.margins(black, torch.tensor([0]), 0.1)
    assert torch.equal(lower, torch.tensor([[math.inf, 0.0]]).double())


def test_at_eps_0_all_that_is_right_is_certified():
    context = context_of(small_network())
    (case,) = (probe := IntervalBounds(eps=(0.0,))).cases(context)
    assert torch.equal(probe.passed(context, case), context.correct(context.images))


def test_a_linear_classifier_is_certified_up_to_its_exact_margin():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    images, labels, eps = inner_images(200, (1, 8, 8)), torch.randint(0, 4, (200,)), 0.02
    weight, bias = (p.detach().double() for p in model[1].parameters())
    logits = images.flatten(1) @ weight.T + bias
    reach = eps * (weight[:, None] - weight[None]).abs().sum(-1)
    margins = (logits.gather(1, labels[:, None]) - logits - reach[labels]).scatter(1, labels[:, None], math.inf)
    network = traced(model, (1, 8, 8))
    assert torch.allclose(network.margins(images, labels, eps, batch_size=7), margins)
    certified = network.certified(images, labels, eps)
    assert torch.equal(certified, (margins > 0).all(1))
    assert 0 < certified.sum() < 100


def test_images_that_are_already_wrong_cost_nothing(monkeypatch):
    context, seen = context_of(small_network()), []
    real = IntervalNetwork.certified
    monkeypatch.setattr(IntervalNetwork, "certified", lambda *args: seen.append(len(args[1])) or real(*args))
    probe = IntervalBounds(eps=(0.004, 0.0, 0.002))
    passed = [int(probe.passed(context, case).sum()) for case in probe.cases(context)]
    assert seen == [int(context.correct(context.images).sum()), *passed[:2]]


def test_a_model_without_rules_has_an_obstacle_that_names_them():
    probe = IntervalBounds()
    vit = ProbeContext(
        create_backbone("test_vit", 10, (3, 32, 32)).eval(), torch.zeros(1, 3, 32, 32), torch.zeros(1).long(), 0.03
    )
    assert probe.obstacle(vit) == "no interval rule for scaled_dot_product_attention"
    assert probe.obstacle(context_of(small_network(), n=2)) == ""
    assert IntervalNetwork(nn.Sequential(nn.Flatten(), nn.GLU(1)).eval(), SHAPE).obstacle == "no interval rule for glu"
    with pytest.raises(ValueError, match="glu"):
        IntervalNetwork(nn.Sequential(nn.Flatten(), nn.GLU(1)).eval(), SHAPE).bounds(inner_images(1), inner_images(1))


def test_the_names_of_the_probes_are_their_files():
    from zoo.probes import PROBES

    assert PROBES.get("interval") is IntervalBounds
    assert PROBES.get("lipschitz") is LipschitzRadius
    for make, eps in ((IntervalBounds, 1.5), (LipschitzRadius, -1.0)):
        with pytest.raises(UserError, match="eps"):
            make(eps=(eps,))


# The Lipschitz bound as a certificate.


def test_a_hyperplane_is_certified_up_to_the_distance_to_it():
    """For classes w and -w, L is sqrt(2) ||w|| and the margin 2 w x: certified up to w x / ||w||."""
    w = torch.randn(64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).eval()
    model[1].weight.data = torch.stack([w, -w])
    context = context_of(model, n=200)
    distance = context.images.flatten(1) @ w / w.norm() * torch.tensor([1.0, -1.0])[context.labels]
    probe = LipschitzRadius()
    for case in probe.cases(context):
        assert case["norm"] == "L2"
        assert torch.equal(probe.passed(context, case), distance > float(case["eps"]))


def test_no_attack_breaks_an_image_within_its_lipschitz_radius():
    context = context_of(small_network())
    probe = LipschitzRadius(eps=(0.0, 1e-3, 0.01, 0.1))
    attack = PGD(norm="L2", steps=20, restarts=2)
    shares = []
    for case in probe.cases(context):
        certified = probe.passed(context, case)
        robust = attack(context.model, context.images, context.labels, [float(case["eps"])]).robust[0]
        assert not (certified & ~robust).any()
        shares.append(certified.float().mean().item())
    assert shares[0] == context.correct(context.images).float().mean()
    assert shares == sorted(shares, reverse=True)


def test_what_holds_for_all_radii_is_computed_once(monkeypatch):
    context, calls = context_of(small_network(), n=4), []
    bound, network = lipschitz.lipschitz_bound, interval.IntervalNetwork
    monkeypatch.setattr(lipschitz, "lipschitz_bound", lambda *args: calls.append("bound") or bound(*args))
    monkeypatch.setattr(interval, "IntervalNetwork", lambda *args: calls.append("graph") or network(*args))
    for probe in (LipschitzRadius(), IntervalBounds()):
        assert probe.obstacle(context) == ""
        assert all(len(probe.passed(context, case)) == 4 for case in probe.cases(context))
    assert calls == ["bound", "graph"]


def test_a_network_without_a_lipschitz_bound_has_an_obstacle():
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 4)).eval()
    context = context_of(model, n=2)
    assert LipschitzRadius().obstacle(context) == "layer_norm"
    with pytest.raises(ValueError, match="layer_norm"):
        LipschitzRadius().passed(context, {"norm": "L2", "eps": 0.1})
