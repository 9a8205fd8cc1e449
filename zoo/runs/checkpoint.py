"""A checkpoint of a training, finished or not, as a model: the result if the training ended there."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.backbone import create_backbone, with_normalization
from zoo.data import DataSet, open_data
from zoo.errors import UserError
from zoo.files import sha256, user_path
from zoo.lowrank.layers import uninitialized
from zoo.methods import METHODS, Method
from zoo.runs.normalization import given_normalization
from zoo.runs.run import CONFIG, read_config
from zoo.runtime.complexity import count_macs, count_params

if TYPE_CHECKING:
    from zoo.runs.file_metadata import Metadata


class Checkpoint:
    """A checkpoint in a RUN folder, with the configuration of its training.

    Args:
        path: such as ``RUN/last.ckpt``.

    Raises:
        UserError: it is missing or damaged, or its configuration is.
    """

    def __init__(self, path: Path) -> None:
        path = user_path(path)
        if not path.is_file():
            raise UserError(f"no checkpoint at {path}")
        if not (path.parent / CONFIG).is_file():
            raise UserError(f"{path} lies without its {CONFIG}, which says what it is: leave it in its RUN folder")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            self._state = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k[:6] == "model."}
            self._ranks: dict[str, int] = content["ranks"]
        except Exception as error:  # zip, pickle and key errors of a file that is not a checkpoint
            raise UserError(
                f"{path} is not a checkpoint of a training, or is damaged ({type(error).__name__})"
            ) from None
        self.path, self._config = path, read_config(path.parent)
        self.sha256 = sha256(path)

    @cached_property
    def data(self) -> DataSet:
        """The data set it is trained on."""
        data = open_data(self._config["data"], data_dir=self.data_dir, image_size=self._config.get("image_size"))
        if given := given_normalization(self._config.get("mean"), self._config.get("std")):
            data.mean, data.std = given
        return data

    @property
    def data_dir(self) -> Path | None:
        """The folder from which its training reads the data."""
        folder = self._config.get("data_dir")
        return Path(folder) if folder else None

    @property
    def _method(self) -> Method:
        options = dict(self._config["method"])
        return METHODS.saved(options.pop("name"), options, self.path)

    def _backbone(self) -> nn.Module:
        classes, stem = len(self.data.class_names), self._config.get("stem", "auto")
        return create_backbone(self._config["arch"], classes, self.data.image_shape, stem=stem)

    def model(self) -> nn.Module:
        """Return the deployed form (plain layers), in eval mode; images in [0, 1] to logits.

        Raises:
            UserError: its tensors belong to another model than the configuration's.
        """
        with uninitialized():
            converted = self._method.convert(self._backbone(), self._ranks)
            self._method.adapt_(converted)
        trained = with_normalization(converted, self.data.mean, self.data.std).eval()
        try:
            trained.load_state_dict(self._state)
        except RuntimeError:
            raise UserError(f"{self.path} holds another model than {CONFIG} beside it describes") from None
        self._method.merge_(trained)
        return self._method.deploy(trained).eval()

    def metadata(self) -> "Metadata":
        """Return the metadata of a file exported from it."""
        from zoo._version import __version__
        from zoo.runs.file_metadata import Metadata

        model, dense, data = self.model(), self._backbone(), self.data
        counts: dict[str, Any] = {
            "params": count_params(model),
            "macs": count_macs(model, data.image_shape),
            "dense_params": count_params(dense),
            "dense_macs": count_macs(dense, data.image_shape),
        }
        return Metadata(
            zoo_version=__version__,
            arch=self._config["arch"],
            method=self._config["method"]["name"],
            data=self._config["data"],
            image_shape=data.image_shape,
            stem=self._config.get("stem", "auto"),
            class_names=data.class_names,
            mean=data.mean,
            std=data.std,
            ranks=self._ranks,
            weights_sha256=self.sha256,
            training=f"checkpoint {self.path.name}",
            commit="",
            **counts,
        )
