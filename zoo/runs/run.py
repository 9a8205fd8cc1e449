"""A RUN folder: the configuration, the metrics, the weights and the card of one training."""

from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.backbone import create_backbone, with_normalization
from zoo.errors import UserError, first_line
from zoo.files import atomic, sha256, user_path
from zoo.lowrank.layers import uninitialized
from zoo.lowrank.shells import merge_shells
from zoo.methods import METHODS, Method
from zoo.runs.card import Card
from zoo.runs.ordered_file import PADDING
from zoo.runs.records import Weights

CARD = "card.json"
CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"
CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"
"""The epoch of adversarial training most robust to PGD on validation images; removed when the run is finished."""
METRICS = "metrics.csv"
LAYERS = "layers.csv"
"""Rank and condition number of every factorized layer, at the start and after each epoch."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return the options that the training in a RUN folder was started with, by name.

    Raises:
        UserError: its configuration is missing or damaged.
    """
    path = folder / CONFIG
    try:
        config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        _ = config["arch"], config["data"], config["seed"], config["method"]["name"]
    except FileNotFoundError:
        raise UserError(f"{folder} has no {CONFIG}, which says how it was trained") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError, KeyError, TypeError):
        raise UserError(f"{path} is damaged, and says how the run was trained: restore it, or train again") from None
    return config


def save_weights(model: nn.Module, folder: Path) -> Weights:
    """Write a model's parameters and buffers as safetensors and return their entry for the card."""
    path = folder / WEIGHTS
    with atomic(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, temporary)
    return Weights(file=WEIGHTS, sha256=sha256(path), bytes=path.stat().st_size)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; factors that are stored by the sizes of a nested network are put together.

    Raises:
        UserError: it is missing, truncated or damaged.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        stored = load_file(path)
    except Exception as error:  # SafetensorError, or what torch says of a type or a shape that it does not know
        raise UserError(
            f"{path} cannot be read ({first_line(error)}): it is truncated, or not a safetensors file"
        ) from None
    return merge_shells({name: value for name, value in stored.items() if not name.startswith(PADDING)})


def other_shapes(own: dict[str, Tensor], state: dict[str, Tensor]) -> set[str]:
    """Return the names that both have with tensors of different shapes."""
    return {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape}


def load_weights(model: nn.Module, path: Path) -> None:
    """Load safetensors into a model, in place; the names must be the same on both sides.

    Raises:
        UserError: the file is missing, truncated or damaged, or holds another model's weights.
    """
    state = read_weights(path)
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = sorted(other_shapes(own, state))
    if missing or extra or other:
        counts = f"{len(missing)} tensors missing, {len(extra)} unknown, {len(other)} of another shape"
        raise UserError(f"{path} holds another model's weights: {counts}, such as {(missing + extra + other)[0]}")
    model.load_state_dict(state)


class Run:
    """A finished training, read from its folder.

    Args:
        folder: the RUN folder.

    Raises:
        UserError: it is not one, its training has not finished, or a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder = user_path(folder)
        if folder.is_file():
            raise UserError(f"{folder} is a file: a run is the folder with {CARD} in it")
        if not folder.is_dir():
            raise UserError(f"no run at {folder}: there is no such folder")
        if not (folder / CARD).is_file():
            if (folder / CONFIG).is_file():
                raise UserError(f"{folder} has no card yet: finish it with `zoo train --resume {folder}`")
            raise UserError(f"{folder} is not a run: it has no {CARD}")
        self.card = Card.load(folder / CARD)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def data_dir(self) -> Path | None:
        """The folder of its training's data; None without one, or without a configuration, like published models."""
        try:
            recorded = read_config(self.folder).get("data_dir")
        except UserError:
            return None
        return Path(recorded) if recorded else None

    @property
    def method(self) -> Method:
        """The method with the hyper-parameters of the training."""
        return METHODS.saved(self.card.method, self.card.method_options, self.folder / CARD)

    def _wrapped(self, backbone: nn.Module) -> nn.Module:
        return with_normalization(backbone, self.card.mean, self.card.std).eval()

    def _backbone(self) -> nn.Module:
        return create_backbone(self.card.arch, len(self.card.class_names), self.card.image_shape, stem=self.card.stem)

    def trained_model(self) -> nn.Module:
        """Return the model in its trained form (U, S, V separate), in eval mode; images in [0, 1]."""
        with uninitialized():
            model = self._wrapped(self.method.convert(self._backbone(), self.card.ranks))
        self.check_weights()
        load_weights(model, self.folder / self.card.weights.file)
        return model

    def check_weights(self) -> None:
        """Check that the weights are those that the card names.

        Raises:
            UserError: they are missing or different.
        """
        weights = self.folder / self.card.weights.file
        if not weights.is_file():
            raise UserError(f"no weights at {weights}")
        if weights.stat().st_size != self.card.weights.bytes:
            raise UserError(f"{weights} has {weights.stat().st_size} bytes, its card says {self.card.weights.bytes}")
        if sha256(weights) != self.card.weights.sha256:
            raise UserError(f"{weights} is not the file its card names: its SHA-256 differs")

    def model(self) -> nn.Module:
        """Return the deployed form (plain layers), in eval mode; images in [0, 1] to logits."""
        return self.method.deploy(self.trained_model()).eval()

    def dense_model(self) -> nn.Module:
        """Return the dense backbone that this run compressed, with random weights, in eval mode."""
        return self._wrapped(self._backbone())

    def save_card(self, card: Card) -> None:
        """Replace the card."""
        card.save(self.folder / CARD)
        self.card = card
