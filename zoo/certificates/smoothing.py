"""Randomised smoothing: a certified L2 radius of the classifier that votes under Gaussian noise.

Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing, ICML 2019, arXiv 1902.02918.
"""

import torch
from scipy.stats import beta, norm
from torch import Tensor


def lower_confidence_bound(hits: Tensor, draws: int, alpha: float) -> Tensor:
    """Return the one-sided Clopper-Pearson bound: a probability that is at least this with confidence 1 - alpha.

    It is the alpha-quantile of Beta(k, n - k + 1) for k hits of n draws, and 0 for none.

    Examples:
        >>> import torch
        >>> round(lower_confidence_bound(torch.tensor([100]), 100, 0.001).item(), 4)  # 0.001 ** (1 / 100)
        0.9333

    Args:
        hits: k, integers in 0..n, any shape.
        draws: n, at least 1.
        alpha: probability that the bound does not hold, in (0, 1).

    Returns:
        The bounds in float64, of the shape of ``hits``.
    """
    k = hits.double()
    found = torch.as_tensor(beta.ppf(alpha, k.numpy(), (draws - k + 1).numpy()), dtype=torch.float64)
    return torch.where(k > 0, found, 0.0)


def certified_radius(hits: Tensor, draws: int, sigma: float, alpha: float) -> Tensor:
    """Return the L2 radius within which the smoothed classifier keeps its class, sigma Phi^-1(p), or -inf.

    p is the lower bound on the probability that noise leaves the class (theorem 1 of the paper, with one minus p in
    the place of the runner-up's probability). Where p is at most 1/2 the classifier abstains: -inf.

    Args:
        hits: draws with that class, which must have been chosen on other draws, (N,).
        draws: of noise for each image.
        sigma: standard deviation of the noise, in pixels of [0, 1].
        alpha: probability that a radius is wrong.
    """
    p = lower_confidence_bound(hits, draws, alpha)
    radius = sigma * torch.as_tensor(norm.ppf(p.numpy()), dtype=torch.float64)
    return torch.where(p > 0.5, radius, -torch.inf)
