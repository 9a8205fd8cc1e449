"""One page with every recipe."""

from zoo.runs.recipes import recipe_names, recipe_path


def recipe_page() -> dict[str, str]:
    """Return the page by its path on the site."""
    intro = "# Recipes\n\n`zoo train --config NAME` reads one of these files. Flags override it.\n"
    return {"recipes.md": "\n".join([intro, *map(_section, recipe_names())])}


def _section(name: str) -> str:
    return f"## {name}\n\n```yaml\n{recipe_path(name).read_text(encoding='utf-8').strip()}\n```\n"
