import copy

import pytest
import torch
from make_run import shake
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.backbone import create_backbone
from zoo.backbone.fold_batch_norm import fold_batch_norm

SHAPE = (3, 16, 16)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def relative_difference(a: nn.Module, b: nn.Module, shape: tuple[int, int, int] = SHAPE) -> float:
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = a(images)
        return ((b(images) - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(
    ("arch", "size", "left"),
    [
        ("test_resnet", 32, 0),  # the downsample convolution shares its input with the block's first
        ("test_efficientnet", 32, 0),  # BatchNormAct2d, depthwise convolutions
        ("test_byobnet", 32, 0),
        ("test_coatnet", 160, 2),  # of these one follows no layer, one a convolution that a shortcut reads too
    ],
)
def test_logits_stay_and_batch_norms_go(arch: str, size: int, left: int) -> None:
    torch.manual_seed(0)
    shape = (3, size, size)
    model = shake(create_backbone(arch, 10, shape)).eval()
    folded = fold_batch_norm(model, shape)
    assert norms(model) > left
    assert norms(folded) == left
    assert relative_difference(model, folded, shape) < 1e-5


class Block(nn.Module):
    """conv -> BN, with what comes between or beside them left to a subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=False)
        self.first_bn = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.first_bn(self.first(x)).relu()).mean((2, 3)))

    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class SecondReader(Block):
    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class InPlaceBetween(Block):
    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).relu_())


class ConvTwice(Block):
    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(self.conv(x)))


class NormTwice(Block):
    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + self.bn(2 * y)


class SharedInput(Block):
    """Two bias-free convolutions of one tensor, each with a BatchNorm: a ResNet's downsample block."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(8, 8, 3, bias=False)
        self.other_bn = nn.BatchNorm2d(8, affine=False)

    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.other_bn(self.other(x))


@pytest.mark.parametrize(
    ("kind", "left"),
    [(Block, 0), (SharedInput, 0), (SecondReader, 1), (InPlaceBetween, 1), (ConvTwice, 1), (NormTwice, 1)],
)
def test_only_what_may_be_folded_is(kind: type[Block], left: int) -> None:
    torch.manual_seed(0)
    model = shake(kind()).eval()
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model, SHAPE)
    assert norms(folded) == left
    assert relative_difference(model, folded) < 1e-5
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_linear_and_its_batch_norm() -> None:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(48, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)
    model = shake(nn.Sequential(*layers)).eval()
    folded = fold_batch_norm(model, (3, 4, 4))
    assert norms(folded) == 0
    assert relative_difference(model, folded, (3, 4, 4)) < 1e-6


def test_a_norm_over_another_axis_than_the_layer_s_outputs_stays() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.bn, self.head = nn.Linear(6, 5), nn.BatchNorm1d(3), nn.Linear(15, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.bn(self.linear(x[:, 0])).flatten(1))

    model = shake(Rows()).eval()
    folded = fold_batch_norm(model, (1, 3, 6))
    assert norms(folded) == 1
    assert relative_difference(model, folded, (1, 3, 6)) == 0


def test_activation_inside_the_norm_stays() -> None:
    torch.manual_seed(0)
    norm = BatchNormAct2d(8, act_layer=nn.Tanh)
    model = shake(nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.Flatten(), nn.Linear(8 * 14 * 14, 4)))
    folded = fold_batch_norm(model, SHAPE)
    assert norms(folded) == 0
    assert any(isinstance(module, nn.Tanh) for module in folded.modules())
    assert not folded.training
    assert relative_difference(model.eval(), folded) < 1e-5
