"""Compressed, adversarially robust image classifiers: train, evaluate, export and time them."""

from typing import TYPE_CHECKING, Any

from zoo._version import __version__ as __version__

__all__ = ["create_model", "list_models", "load"]

if TYPE_CHECKING:
    from zoo.hub.models import create_model, list_models, load


def __getattr__(name: str) -> Any:
    # Imported when asked for: the command line starts without torch.
    if name in __all__:
        from zoo.hub import models

        return getattr(models, name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
