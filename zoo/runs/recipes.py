"""The recipes that come with zoo: YAML files for ``zoo train --config``."""

from pathlib import Path

from zoo.errors import UserError, unknown_name
from zoo.files import user_path

FOLDER = Path(__file__).parents[1] / "configs"


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def describe_recipe(name: str) -> str:
    """Return a recipe's description: the comment at its head, up to the command."""
    head, _, _ = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").partition("# Command:")
    return " ".join(line.removeprefix("#").strip() for line in head.splitlines())


def recipe_path(name: str) -> Path:
    """Return the file for a path or a recipe's name.

    Raises:
        UserError: there is no such file and no such recipe.
    """
    path = user_path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise UserError(f"there is no configuration file {name}")
    if name not in recipe_names():
        raise unknown_name("recipe", name, recipe_names())
    return FOLDER / f"{name}.yaml"
