"""Checks of the credibility of figures: one check for each sign of gradient masking, and one for no learning at all.

Carlini et al.: On evaluating adversarial robustness, arXiv 1902.06705; Croce, Hein, arXiv 2003.01690; Tramer,
Carlini, Brendel, Madry: On adaptive attacks to adversarial example defenses, arXiv 2002.08347.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.attacks import AttackedModel, cross_entropy, fp32
from zoo.attacks.pgd import PGD
from zoo.data import stratified
from zoo.evaluation.informative import uninformative_signs
from zoo.runs.records import Evaluation, Sanity

PROBE_IMAGES = 100
"""Images for these checks."""
NO_GRADIENT = 0.1
"""Share of images without any gradient from which gradients count as masked."""
WHOLE_BALL = 0.5
"""Linf radius at which nothing recognizable remains: every image can be turned grey."""
SURVIVORS = 0.05
"""Largest believable accuracy there beyond guessing."""
ONE_STEP = 16 / 255
"""Linf radius above which a single step is too long to be the stronger attack: it overshoots."""
NOISE = 0.002
"""Accuracy that chance may move: two images of a thousand, as AutoAttack's own checks allow."""
WEAKER = {
    "fgsm": (),
    "pgd": ("fgsm",),
    "apgd": ("fgsm", "pgd"),
    "cr": ("fgsm", "pgd"),  # APGD and AutoAttack may each break a few images more, or fewer, whatever the model
    "autoattack": ("fgsm", "pgd", "apgd"),
}
"""Attacks that break no more than an attack, at the same norm and radius."""
EFFORT = ("steps", "restarts")
"""Settings that cannot break less when they increase."""
WHITE_BOX = ("pgd", "apgd", "apgd_t", "fab_t", "cr")
"""Attacks with many gradients, which know the direction that Square has to guess."""


def sanity(model: nn.Module, images: Tensor, labels: Tensor, evaluations: Sequence[Evaluation]) -> Sanity:
    """Look for signs of gradient masking, and of no learning, in a model and in its measurements.

    Args:
        model: in eval mode, where it was evaluated.
        images: uint8 (N, C, H, W), of which `PROBE_IMAGES` are used, the same share of every class.
        labels: (N,).
        evaluations: of this model.
    """
    device = next(model.parameters(), torch.empty(0)).device
    few = stratified(labels.cpu(), PROBE_IMAGES, seed=0).to(images.device)
    x, y = images[few].to(device).float().div(255), labels[few].to(device)
    attacked = AttackedModel(model)
    with fp32(device):
        first = attacked.logits(x)
        random = not torch.equal(first, attacked.logits(x))
        gradient = attacked.gradient(x, cross_entropy, y)[1]
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
        uninformative=uninformative_signs(first.argmax(1), y, labels, evaluations),
        zero_gradient_share=silent,
        accuracy_at_large_eps=whole,
        n=len(x),
    )


def _monotone(evaluations: Sequence[Evaluation]) -> bool:
    """Return whether no larger radius, and no stronger attack at one radius, leaves clearly more of the same images."""
    attacked = [e for e in evaluations if e.attack in WEAKER]
    return all(
        strong.accuracy <= weak.accuracy + NOISE + 2 / weak.n
        for weak in attacked
        for strong in attacked
        if _same_images(weak, strong) and weak.eps <= strong.eps and _is_no_weaker(strong, weak)
        if strong.attack != "fgsm" or weak.eps == strong.eps or strong.eps <= ONE_STEP
    )


def _same_images(one: Evaluation, other: Evaluation) -> bool:
    return (one.norm, one.n, one.seed) == (other.norm, other.n, other.seed)


def _is_no_weaker(strong: Evaluation, weak: Evaluation) -> bool:
    """Return whether `weak` is one of the `WEAKER` attacks of `strong`, or the same attack with no more effort."""
    if strong.attack != weak.attack:
        raises_dlr = strong.options.get("loss") == "dlr"  # it may find less than the cross-entropy
        return weak.attack in WEAKER[strong.attack] and not raises_dlr
    efforts = ([e.options.get(name, 1) for name in EFFORT] for e in (strong, weak))
    others = [{key: x for key, x in e.options.items() if key not in EFFORT} for e in (strong, weak)]
    return others[0] == others[1] and all(more >= less for more, less in zip(*efforts, strict=True))


def _black_box_stronger(evaluations: Sequence[Evaluation]) -> bool:
    """Return whether Square breaks more than single images that gradient attacks, before or beside it, left robust."""
    return any(left - e.accuracy > NOISE + 1 / e.n for e in evaluations for left in _left_by_gradients(e, evaluations))


def _left_by_gradients(e: Evaluation, evaluations: Sequence[Evaluation]) -> list[float]:
    """Return the accuracies under gradient attacks on the images that Square attacked, or nothing if it did not run."""
    names = list(e.parts)
    if "square" in names[1:]:
        return [e.parts[names[names.index("square") - 1]]]
    if e.attack != "square":
        return []
    beside = (w for w in evaluations if w.attack in WHITE_BOX and w.eps == e.eps and _same_images(w, e))
    return [min((w.accuracy for w in beside), default=e.accuracy)]


def _differs_at_zero(evaluations: Sequence[Evaluation]) -> bool:
    """Return whether an attack with radius zero leaves another accuracy than the clean one."""
    clean = {(e.n, e.seed): e.accuracy for e in evaluations if e.attack == "clean"}
    return any(
        e.accuracy != clean.get((e.n, e.seed), e.accuracy) for e in evaluations if e.norm is not None and e.eps == 0
    )
