"""Whether an accuracy under attack can be believed: the signs of gradient masking, each with its own check.

Carlini et al.: On evaluating adversarial robustness, arXiv 1902.06705; Croce, Hein, arXiv 2003.01690; Tramer,
Carlini, Brendel, Madry: On adaptive attacks to adversarial example defenses, arXiv 2002.08347.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.attacks import Victim, fp32
from zoo.attacks._losses import cross_entropy
from zoo.attacks.pgd import PGD
from zoo.card import Evaluation, Sanity
from zoo.data import stratified

PROBES = 100
"""Images that the probes look at."""
NO_GRADIENT = 0.1
"""Share of images without any gradient from which gradients count as masked."""
WHOLE_BALL = 0.5
"""Linf radius at which nothing recognizable is left: every image can be turned grey."""
SURVIVORS = 0.05
"""Largest believable accuracy there beyond guessing."""
ONE_STEP = 16 / 255
"""Linf radius above which a single step is too long to be the stronger one: it lands beyond what it was after."""
NOISE = 0.002
"""Accuracy that chance may move: two images of a thousand, as AutoAttack's own checks allow."""
STRENGTH = ("fgsm", "pgd", "apgd", "autoattack")
"""Attacks from weak to strong, on the same norm and radius."""


def sanity(model: nn.Module, images: Tensor, labels: Tensor, evaluations: Sequence[Evaluation]) -> Sanity:
    """Look for signs of gradient masking in a model and in what was measured on it.

    Args:
        model: in eval mode, where it was evaluated.
        images: uint8 (N, C, H, W), of which `PROBES` are looked at, the same share of every class.
        labels: (N,).
        evaluations: of this model.
    """
    device = next(model.parameters(), torch.empty(0)).device
    few = stratified(labels.cpu(), PROBES, seed=0).to(images.device)
    x, y = images[few].to(device).float().div(255), labels[few].to(device)
    victim = Victim(model)
    with fp32(device):
        first = victim.logits(x)
        random = not torch.equal(first, victim.logits(x))
        gradient = victim.ascent(x, cross_entropy, y)[2]
        silent = (gradient == 0).flatten(1).all(1).double().mean().item()
    guessing = y.bincount().max().item() / len(y)
    whole = PGD(steps=20, random_start=False)(model, x, y, [WHOLE_BALL]).robust.double().mean().item()
    failures = {
        "random_outputs": random,
        "zero_gradients": silent > NO_GRADIENT,
        "survives_large_eps": whole > guessing + SURVIVORS,
        "not_monotone": not _monotone(evaluations),
        "black_box_stronger": _black_box_stronger(evaluations),
        "differs_at_eps_0": _differs_at_zero(evaluations),
    }
    return Sanity(
        failures=tuple(name for name, failed in failures.items() if failed),
        zero_gradient_share=silent,
        accuracy_at_large_eps=whole,
        n=len(x),
    )


def _monotone(evaluations: Sequence[Evaluation]) -> bool:
    """No larger radius, and no stronger attack at the same radius, may leave clearly more of the same images."""
    attacked = [e for e in evaluations if e.attack in STRENGTH]
    return all(
        strong.accuracy <= weak.accuracy + NOISE + 2 / weak.n
        for weak in attacked
        for strong in attacked
        if weak.norm == strong.norm and (weak.n, weak.seed) == (strong.n, strong.seed) and weak.eps <= strong.eps
        if _strength(weak) <= _strength(strong)
        if strong.attack != "fgsm" or weak.eps == strong.eps or strong.eps <= ONE_STEP
    )


def _strength(e: Evaluation) -> tuple[int, int]:
    """Return the place of an attack among `STRENGTH`, and among those of one name its steps."""
    return STRENGTH.index(e.attack), e.options.get("steps", 0)


def _black_box_stronger(evaluations: Sequence[Evaluation]) -> bool:
    """Square may break no more than single images that the gradient attacks before it left standing."""
    for e in evaluations:
        names = list(e.parts)
        if "square" in names[1:]:
            before = e.parts[names[names.index("square") - 1]]
            if before - e.parts["square"] > NOISE + 1 / e.n:
                return True
    return False


def _differs_at_zero(evaluations: Sequence[Evaluation]) -> bool:
    """Whether an attack that may move nothing leaves another accuracy than the images themselves have."""
    clean = {(e.n, e.seed): e.accuracy for e in evaluations if e.attack == "clean"}
    return any(
        e.accuracy != clean.get((e.n, e.seed), e.accuracy) for e in evaluations if e.norm is not None and e.eps == 0
    )
