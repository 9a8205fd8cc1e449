"""The flags of ``zoo train`` that name a plugin, and the plugins' packages, which are imported when needed."""

import importlib
from dataclasses import dataclass
from typing import Any

from zoo.cli._source import ClassText, read_plugin
from zoo.plugins import Plugins, plugin_modules


@dataclass(frozen=True)
class PluginFlag:
    """A kind of plugin of a training.

    Attributes:
        kind: the noun for one of them.
        package: that holds them.
        registry: the name of their `Plugins` in that package.
        lists: the flag of ``zoo list`` that describes them.
        default: the plugin if none is named.
    """

    kind: str
    package: str
    registry: str
    lists: str
    default: str = "none"

    def plugins(self) -> Plugins[Any]:
        """Import the package, and return its plugins."""
        found: Plugins[Any] = getattr(importlib.import_module(self.package), self.registry)
        return found

    def names(self) -> list[str]:
        """Return the names of the plugins."""
        return sorted(plugin_modules(self.package))

    def read(self, name: str) -> ClassText:
        """Return the description of a plugin.

        Raises:
            UserError: no plugin has that name.
        """
        return read_plugin(self.kind, self.package, name)


FLAGS = {
    "method": PluginFlag("method", "zoo.methods", "METHODS", "methods", "robust_lowrank"),
    "adversary": PluginFlag("adversary", "zoo.adversaries", "ADVERSARIES", "adversaries"),
    "regularize": PluginFlag("regularizer", "zoo.regularizers", "REGULARIZERS", "regularizers"),
    "finish": PluginFlag("finisher", "zoo.post_training", "FINISHERS", "finishers"),
}
"""By flag, in the order in which `zoo.training.trainer.train` takes the plugins."""
