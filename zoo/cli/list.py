"""List methods, architectures, data sets or recipes."""

from zoo.cli._parser import Parser


def main(parser: Parser, argv: list[str]) -> None:
    """Print what is asked for; without options, the methods, data sets and recipes."""
    parser.add_argument("--methods", action="store_true", help="The methods.")
    parser.add_argument("--adversaries", action="store_true", help="What can be trained against.")
    parser.add_argument("--data", action="store_true", help="The data sets.")
    parser.add_argument("--recipes", action="store_true", help="The configurations that come with zoo.")
    parser.add_argument(
        "--archs", metavar="PATTERN", nargs="?", const="*", help="timm's architectures, such as 'resnet*'."
    )
    options = parser.parse_args(argv)

    from rich.console import Console

    console = Console()
    everything = not (options.methods or options.adversaries or options.data or options.recipes or options.archs)
    if options.methods or everything:
        from zoo.methods import METHODS

        console.print(_table("method", METHODS.describe()))
    if options.adversaries or everything:
        from zoo.adversaries import ADVERSARIES

        console.print(_table("adversary", ADVERSARIES.describe()))
    if options.data or everything:
        from zoo.data import DATA

        console.print(_table("data set", DATA.describe()))
    if options.recipes or everything:
        from zoo.recipes import FOLDER, recipe_names

        texts = {name: (FOLDER / f"{name}.yaml").read_text().splitlines()[0].lstrip("# ") for name in recipe_names()}
        console.print(_table("recipe", texts))
    if options.archs:
        print("\n".join(_architectures(options.archs)))


def _architectures(pattern: str) -> list[str]:
    import timm

    from zoo.errors import UserError, unknown_name

    found: list[str] = timm.list_models(pattern)
    if not found:
        if any(c in pattern for c in "*?["):
            raise UserError(f"no architecture matches {pattern!r}: try a wider pattern, such as 'resnet*'")
        raise unknown_name("architecture", pattern, timm.list_models())
    return found


def _table(kind: str, rows: dict[str, str]) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    table.add_column(kind, min_width=max(map(len, rows), default=0))  # a name is for copying: never cut
    table.add_column("")
    for name, text in rows.items():
        table.add_row(name, text)
    return table
