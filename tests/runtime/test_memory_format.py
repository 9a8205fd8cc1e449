"""Tensors that change their shape keep the way that they lie in memory: a resumed run builds them so."""

import pytest
import torch
from rank_training import Digits, Plain, fit
from torch import nn

from zoo.callbacks import ChannelPruning, RankPruning
from zoo.channels import fit_shapes_
from zoo.lowrank.factorize import factorize
from zoo.runtime.memory_format import empty_as

FORMATS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(8, 6, 3, 3), (8, 6, 1, 1), (8, 1, 3, 3), (1, 6, 3, 3), (1, 1, 3, 3), (8, 1, 1, 1)]


def strides(shape: tuple[int, ...], memory_format: torch.memory_format) -> tuple[int, ...]:
    """Return those that a layer has that is built at a shape, and moved to a format."""
    return nn.Conv2d(shape[1], shape[0], shape[2]).to(memory_format=memory_format).weight.stride()


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("old", SHAPES)
@pytest.mark.parametrize("new", SHAPES[:3])
def test_a_tensor_of_another_shape_lies_as_a_new_one_does(
    old: tuple[int, ...], new: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    if old == (8, 1, 1, 1):
        pytest.skip("a column lies in one way only")
    before = nn.Conv2d(old[1], old[0], old[2]).to(memory_format=memory_format).weight
    after = empty_as(before, new)
    assert after.shape == new
    assert after.stride() == strides(new, memory_format)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("kind", ["ranks", "channels"])
def test_after_a_cut_weights_and_momenta_lie_as_before(kind: str, memory_format: torch.memory_format) -> None:
    module: Digits = Plain() if kind == "channels" else Digits()
    if kind == "ranks":
        module.net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 48, 3), nn.Conv2d(48, 64, 1), nn.ReLU()
        )
        factorize(module.net, {"1": 24, "2": 36}, convolution="tucker")
        module.net.extend([nn.Flatten(), nn.Linear(64 * 36, 10)])
    module.to(memory_format=memory_format)
    schedule = RankPruning(0.3, cuts=2, window=2) if kind == "ranks" else ChannelPruning(0.5)
    trainer = fit(module, [schedule])
    shapes = [p.shape for p in module.parameters() if p.ndim == 4]
    assert shapes != [p.shape for p in Plain().parameters() if p.ndim == 4]
    for p in module.parameters():
        for x in (p, trainer.optimizers[0].state[p]["momentum_buffer"]):
            assert x.ndim != 4 or x.stride() == strides(tuple(p.shape), memory_format)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_module_that_is_given_saved_shapes_keeps_its_format(memory_format: torch.memory_format) -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1)).to(memory_format=memory_format)
    narrow = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 8, 1))
    fit_shapes_(module, narrow.state_dict())
    assert all(p.stride() == strides(tuple(p.shape), memory_format) for p in module.parameters() if p.ndim == 4)
