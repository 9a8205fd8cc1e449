"""Running statistics become those of the images, and nothing else changes."""

import pytest
import torch
from torch import nn

from zoo.runtime.batch_norm import reestimate_batch_norm_, statistics_batches


def test_statistics_are_those_of_the_images() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5), nn.Conv2d(5, 2, 1)).eval()
    weights = {name: value.clone() for name, value in model.named_parameters()}
    batches = [torch.rand(32, 3, 8, 8) * 3 for _ in range(3)]
    assert reestimate_batch_norm_(model, batches) == 1
    outputs = [model[0](x).transpose(0, 1).flatten(1) for x in batches]
    norm = model[1]
    assert torch.allclose(norm.running_mean, torch.stack([x.mean(1) for x in outputs]).mean(0), atol=1e-5)
    assert torch.allclose(norm.running_var, torch.stack([x.var(1) for x in outputs]).mean(0), atol=1e-5)
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize(
    ("rows", "sizes"), [(256, [128, 128]), (257, [128, 128]), (258, [128, 128, 2]), (1, [1]), (129, [128])]
)
def test_a_last_batch_of_one_image_is_left_out(rows: int, sizes: list[int]) -> None:
    """ResNets end in maps of one pixel on small images, where one image has no variance."""
    batches = statistics_batches(torch.arange(rows), 128)
    assert [len(part) for part in batches] == sizes
    if sizes != [1]:
        model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4)).eval()
        assert reestimate_batch_norm_(model, [torch.rand(len(part), 1, 8, 8) for part in batches]) == 1


def test_without_batch_norm_no_image_is_asked_for() -> None:
    assert reestimate_batch_norm_(nn.Linear(3, 3), iter([torch.zeros(1)])) == 0
