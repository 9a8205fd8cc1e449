"""Randomised smoothing: the bound is Clopper-Pearson's, and no certificate exceeds a linear classifier's distance."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor, nn

from zoo.certificates.smoothing import certified_radius, lower_confidence_bound
from zoo.errors import UserError
from zoo.probes import ProbeContext
from zoo.probes.smoothing import RandomizedSmoothing

SHAPE = (1, 4, 4)


@given(draws=st.integers(1, 500), share=st.floats(0, 1), alpha=st.sampled_from([0.001, 0.05]))
def test_the_bound_is_the_probability_under_which_as_many_hits_have_probability_alpha(draws, share, alpha) -> None:
    hits = round(share * draws)
    p = lower_confidence_bound(torch.tensor([hits]), draws, alpha).item()
    if hits == 0:
        assert p == 0
    else:
        assert binom.sf(hits - 1, draws, p) == pytest.approx(alpha, rel=1e-6)


def test_the_largest_radius_is_that_of_draws_without_a_miss() -> None:
    found = certified_radius(torch.tensor([100, 60, 30]), 100, 0.25, 0.001)
    unit = torch.distributions.Normal(0.0, 1.0)
    assert found[0].item() == pytest.approx(0.25 * unit.icdf(torch.tensor(0.001 ** (1 / 100))).item(), rel=1e-4)
    assert found[1:].tolist() == [-math.inf, -math.inf]  # 60 of 100 do not prove more than half


def linear_context(n: int) -> tuple[ProbeContext, Tensor]:
    """Return a linear classifier with images, and each image's distance from the border."""
    torch.manual_seed(0)
    layer = nn.Linear(math.prod(SHAPE), 2)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias.copy_(torch.tensor([0.0, -0.5 * layer.weight[1].sum().item()]))
    model = nn.Sequential(nn.Flatten(), layer).eval()
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8)
    logits = model(images.float() / 255)
    distance = logits.diff(dim=1)[:, 0].abs() / layer.weight[1].norm()
    return ProbeContext(model, images, logits.argmax(1), 0.0), distance.detach().double()


def test_certificates_of_a_linear_classifier_stay_below_its_distance_and_come_near() -> None:
    """Smoothing leaves a linear classifier as it is, so the true radius is the distance from the border."""
    context, distance = linear_context(40)
    probe = RandomizedSmoothing(sigmas=(0.25,), draws=2000, alpha=1e-6)
    radii = probe._radii(context, 0.25)
    certified = radii > 0
    assert (radii <= distance).all()
    assert certified.double().mean() > 0.6
    near = certified & (distance < 0.4)
    assert near.any()
    assert (radii[near] > distance[near] - 0.06).all()


def test_cases_state_the_draws_and_a_larger_radius_keeps_fewer_images() -> None:
    context, _ = linear_context(20)
    probe = RandomizedSmoothing(sigmas=(0.1,), draws=100)
    cases = probe.cases(context)
    assert all(case["draws"] == 100 and case["alpha"] == 0.001 for case in cases)
    passed = [probe.passed(context, case) for case in cases]
    assert all((larger <= smaller).all() for smaller, larger in pairwise(passed))
    assert passed[0].sum() > passed[-1].sum()


def test_an_image_has_the_same_certificate_whatever_the_batch_size() -> None:
    context, _ = linear_context(12)
    small = ProbeContext(context.model, (context.images * 255).round().byte(), context.labels, 0.0, batch_size=7)
    probe = RandomizedSmoothing(draws=60)
    assert torch.equal(probe._radii(context, 0.12), probe._radii(small, 0.12))


def test_an_image_of_another_class_has_no_certificate() -> None:
    context, _ = linear_context(10)
    wrong = ProbeContext(context.model, (context.images * 255).round().byte(), 1 - context.labels, 0.0)
    probe = RandomizedSmoothing(sigmas=(0.05,), eps=(0.0,), draws=100)
    [case] = probe.cases(wrong)
    assert not (probe.passed(wrong, case) & probe.passed(context, case)).any()


@pytest.mark.parametrize("options", [{"sigmas": (0.0,)}, {"eps": (-1.0,)}, {"draws": 0}, {"alpha": 1.0}])
def test_settings_that_make_no_sense_are_refused(options) -> None:
    with pytest.raises(UserError):
        RandomizedSmoothing(**options)
