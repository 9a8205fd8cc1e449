"""A plugin is a module: the files of a package are its plugins, each with one class of the given base.

Other distributions add plugins by entry points, whose group is the package's name::

    [project.entry-points."zoo.methods"]
    soft_lowrank = "my_package.soft_lowrank"
"""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from zoo.errors import UserError, unknown_name

T = TypeVar("T")


class Plugins(Generic[T]):
    """The plugins in a package, found by file name and imported on request.

    ``zoo/methods/robust_lowrank.py`` is the method ``robust_lowrank``: there is no list to add it to.
    Other distributions add plugins by entry points (see the module's docstring); they are equal to zoo's own.
    A module whose name begins with an underscore is not a plugin. A class with renamed options lists them in ``renamed:
    ClassVar[Mapping[str, str]] = {"old": "new"}``: files saved under the old names still load.

    Args:
        kind: noun for one plugin in messages, such as ``"method"``.
        package: the package's import name.
        base: the class that each module subclasses exactly once.
    """

    def __init__(self, kind: str, package: str, base: type[T]) -> None:
        self.kind = kind
        self.package = package
        self.base = base

    def names(self) -> list[str]:
        """Return the names of all plugins, sorted."""
        return sorted(plugin_modules(self.package))

    def get(self, name: str) -> type[T]:
        """Return the class of a plugin.

        Raises:
            UserError: no plugin has that name, or two have it.
            TypeError: its module does not define exactly one subclass of ``base``.
        """
        module = importlib.import_module(plugin_module(self.kind, self.package, name))
        found = [
            cls
            for cls in vars(module).values()
            if inspect.isclass(cls) and issubclass(cls, self.base) and cls.__module__ == module.__name__
        ]
        if len(found) != 1:
            raise TypeError(f"{module.__name__} must define one {self.base.__name__}, found {len(found)}")
        return found[0]

    def saved(self, name: str, options: Mapping[str, Any], file: Path) -> T:
        """Return a plugin with options that were saved in a file.

        Raises:
            UserError: no plugin has that name, or it does not have these options.
        """
        plugin = self.get(name)
        try:
            return plugin(**self.current(name, options, str(file)))
        except TypeError:
            known = ", ".join(options)
            why = f"this zoo's {name} has other options than {known}"
            raise UserError(f"{file}: {why}: pip install --upgrade robust-zoo") from None

    def current(self, name: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return options under their current names.

        Args:
            name: of the plugin.
            options: under current or earlier names.
            where: their place, for the message.

        Raises:
            UserError: no plugin has that name, or an option is given under both of its names.
        """
        new_names, result = renamed_options(self.get(name)), {}
        for key, value in options.items():
            current = new_names.get(key, key)
            if current in result:
                old = next(old for old, new in new_names.items() if new == current)
                raise UserError(f"{where}: {old} is now {current}, and both are given: leave {old} out")
            result[current] = value
        return result

    def check_options(self, name: str, options: Iterable[str]) -> None:
        """Check that a plugin has options of these names, current or earlier ones.

        Raises:
            UserError: no plugin has that name, or it lacks one of the options.
        """
        plugin = self.get(name)
        known = [field.name for field in dataclasses.fields(plugin)]  # type: ignore[arg-type]
        for key in options:
            if key in known or key in renamed_options(plugin):
                continue
            if not known:
                raise UserError(f"{self.kind} {name} has no options: leave {key} out")
            raise unknown_name(f"option of {name}", key, known)

    def name_of(self, plugin: T) -> str:
        """Return the name under which ``plugin``'s class is found."""
        module = type(plugin).__module__
        found = (name for name, other in plugin_modules(self.package).items() if other == module)
        return next(found, module.rpartition(".")[2])

    def describe(self) -> dict[str, str]:
        """Return the first line of each plugin's docstring, by name."""
        return {name: (inspect.getdoc(self.get(name)) or "").partition("\n")[0] for name in self.names()}


def plugin_modules(package: str) -> dict[str, str]:
    """Return the modules of a package's plugins by name: its own files and entry points; nothing is imported.

    Raises:
        UserError: another distribution adds a plugin under a name that is taken.
    """
    folders = sys.modules[package].__path__ if package in sys.modules else _folders(package)
    own = [m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_")]
    found = {name: f"{package}.{name}" for name in own}
    for name, module, distribution in _entry_points(package):
        if name in found:
            raise UserError(
                f"{distribution} adds {name} to {package}, which is {found[name]} already: rename one of them"
            )
        found[name] = module
    return found


def _folders(package: str) -> list[str]:
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    return [str(Path(x, *rest)) for x in (spec and spec.submodule_search_locations) or ()]


def plugin_module(kind: str, package: str, name: str) -> str:
    """Return the import name of a plugin's module.

    Raises:
        UserError: no plugin has that name, or two have it.
    """
    modules = plugin_modules(package)
    if name not in modules:
        raise unknown_name(kind, name, sorted(modules))
    return modules[name]


@cache
def _entry_points(package: str) -> tuple[tuple[str, str, str], ...]:
    """Return name, module and distribution of each plugin that others add to a package."""
    found = importlib.metadata.entry_points(group=package)
    return tuple((x.name, x.module, x.dist.name if x.dist else "a distribution") for x in found)


def renamed_options(plugin: type) -> dict[str, str]:
    """Return the current names of a plugin's options by their earlier ones, including inherited options."""
    classes = reversed(plugin.__mro__)
    return {old: new for cls in classes for old, new in vars(cls).get("renamed", {}).items()}
