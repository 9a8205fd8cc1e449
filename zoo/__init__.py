"""Compressed, adversarially robust image classifiers: train, evaluate, export and time them."""

from typing import TYPE_CHECKING, Any

from zoo._version import __version__ as __version__

__all__ = [
    "attack",
    "compress",
    "create_model",
    "deploy",
    "evaluate",
    "export_onnx",
    "list_models",
    "load",
]

if TYPE_CHECKING:
    from zoo.api import attack, compress, deploy, evaluate, export_onnx
    from zoo.hub.models import create_model, list_models, load


def __getattr__(name: str) -> Any:
    # Imported on first use, so that the command line starts without torch.
    if name in ("create_model", "list_models", "load"):
        from zoo.hub import models

        return getattr(models, name)
    if name in __all__:
        from zoo import api

        return getattr(api, name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
