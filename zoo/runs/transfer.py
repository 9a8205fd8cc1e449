"""Transfer from a trained model: its ranks and weights, or its weights multiplied out."""

import math

import torch
from torch import nn

from zoo.backbone import ends
from zoo.errors import UserError
from zoo.lowrank.factorize import Ranks, weight_layers
from zoo.lowrank.layers import factorized_layers
from zoo.lowrank.sizes import NAME as SIZES
from zoo.runs.run import Run, other_shapes, read_weights


def layers_without_channels(run: Run) -> list[str]:
    """Return the layers of a run whose card gives a width in the place of a rank."""
    return [row.name for row in run.card.layers if row.rank is None and row.name in run.card.ranks]


def transferred_ranks(run: Run, model: nn.Module) -> Ranks:
    """Return a run's ranks (or widths), for a dense model of the same architecture that may have other classes.

    A classifier of full rank keeps full rank; another keeps its rank as far as possible. A classifier that is not
    factorized gets the width of the new classes.

    Args:
        run: the trained model.
        model: the dense model, not yet converted.
    """
    own = {row.name: row for row in run.card.layers}
    layers = {layer.name: layer for layer in weight_layers(model)}
    _, classifier = ends(model)
    ranks = dict(run.card.ranks)
    for name in classifier & ranks.keys() & layers.keys():
        if name not in own:
            raise UserError(f"the card of {run.folder} has a rank of {name}, but no such layer: it is damaged")
        row, layer = own[name], layers[name]
        if row.rank is None:
            ranks[name] = layer.n
        else:
            full = ranks[name] == min(row.shape[0], math.prod(row.shape[1:]))
            ranks[name] = layer.full_rank if full else min(ranks[name], layer.full_rank)
    return ranks


def load_transferred(run: Run, model: nn.Module) -> None:
    """Load a run's weights into a converted backbone, in place, except those of a classifier for other classes.

    Args:
        run: the trained model.
        model: the backbone, converted with `transferred_ranks`.

    Raises:
        UserError: the weights are damaged or of another architecture or image size.
    """
    run.check_weights()
    state = {
        name.removeprefix("backbone."): value
        for name, value in read_weights(run.folder / run.card.weights.file).items()
    }
    if not hasattr(model, SIZES):  # of a nested network it is the largest
        state = {name: value for name, value in state.items() if not name.startswith(f"{SIZES}.")}
    own = model.state_dict()
    _, classifier = ends(model)
    other = other_shapes(own, state)
    replaced = {layer for layer in classifier if any(name.startswith(f"{layer}.") for name in other)}
    left = {name for name in own if any(name.startswith(f"{layer}.") for layer in replaced)}
    wrong = (own.keys() ^ state.keys() | other) - left
    if wrong:
        shape = " x ".join(map(str, run.card.image_shape))
        raise UserError(
            f"{run.name} ({run.card.arch} for {shape} images) does not fit this model, {min(wrong)} for one: "
            "take the same --arch, and a method and images of the same form"
        )
    model.load_state_dict({name: value for name, value in state.items() if name not in left}, strict=False)


@torch.no_grad()
def load_multiplied_out(run: Run, model: nn.Module) -> None:
    """Load a run's weights into its dense backbone, in place, each factorized layer as the product of its factors.

    Args:
        run: the trained model.
        model: the dense backbone, not yet converted.

    Raises:
        UserError: the weights are damaged or of another architecture or image size, or layers have lost channels.
    """
    trained = run.trained_model().get_submodule("backbone")
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith(f"{SIZES}.")}
    for name, layer in factorized_layers(trained):
        for factor in "USV":
            del state[f"{name}.{factor}"]
        state[f"{name}.weight"] = layer.weight
    own = model.state_dict()
    wrong = own.keys() ^ state.keys() | other_shapes(own, state)
    if wrong:
        card = run.card
        raise UserError(
            f"{run.name} ({card.method}, {card.arch} for {' x '.join(map(str, card.image_shape))} images of "
            f"{len(card.class_names)} classes) does not fill this model, {min(wrong)} for one: "
            "--weights takes a RUN of the same --arch, images and classes that has all its channels"
        )
    model.load_state_dict(state)
