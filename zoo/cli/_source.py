"""The descriptions of dataclass fields, read from the file without importing it.

Importing a method takes PyTorch and Lightning, seconds that a help text should not wait for.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zoo.plugins import plugin_module

Definition = tuple[str, ast.AST]
"""A module by its import name, and the definition of one of its names."""


@dataclass(frozen=True)
class FieldText:
    """One field of a dataclass.

    Attributes:
        name: of the field.
        types: of its values, by name, such as ``("int", "None")``.
        choices: of a ``Literal``; otherwise empty.
        default: its value, or the expression that makes it; also None if there is none.
        text: its docstring, on one line.
    """

    name: str
    types: tuple[str, ...]
    choices: tuple[str, ...]
    default: Any
    text: str


@dataclass(frozen=True)
class ClassText:
    """A dataclass: the first line of its docstring, and its fields, inherited ones last."""

    summary: str
    fields: tuple[FieldText, ...]


def read_class(module: str, name: str) -> ClassText:
    """Return the description of a dataclass."""
    return _read(module, _defined(module, name)[1])


def read_plugin(kind: str, package: str, name: str) -> ClassText:
    """Return the description of a plugin: of the class in its file that descends from the package's contract.

    Raises:
        UserError: no plugin has that name, or two have it.
    """
    module = plugin_module(kind, package, name)
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and any(owner == f"{package}._base" for owner, _ in _lineage(module, node)):
            return _read(module, node)
    raise LookupError(f"{module} defines no plugin")


def docstring_and_constant(path: Path, constant: str) -> tuple[str, str]:
    """Return the first line of a module's docstring, and a constant of it, or ``""``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = (node for node in tree.body if isinstance(node, ast.Assign))
    values = (node.value for node in assigned if ast.unparse(node.targets[0]) == constant)
    return _first_line(tree), ast.literal_eval(next(values, ast.Constant("")))


def _read(module: str, node: ast.AST) -> ClassText:
    fields: dict[str, FieldText] = {}
    for owner, cls in _lineage(module, node):
        own = {field.name: field for field in _own_fields(owner, cls)}
        fields |= {name: field for name, field in own.items() if name not in fields}
    assert isinstance(node, ast.ClassDef)
    return ClassText(_first_line(node), tuple(fields.values()))


def _lineage(module: str, node: ast.AST) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield a class and its ancestors, nearest first, each with its module; those of other libraries are left out."""
    assert isinstance(node, ast.ClassDef)
    yield module, node
    for base in node.bases:
        if isinstance(base, ast.Name) and (found := _find(module, base.id)) and isinstance(found[1], ast.ClassDef):
            yield from _lineage(*found)


def _own_fields(module: str, node: ast.ClassDef) -> Iterator[FieldText]:
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        types, choices = _types(module, statement.annotation)
        if types == ("ClassVar",):
            continue
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        default = _value(module, statement.value)
        yield FieldText(statement.target.id, types, choices, default, " ".join(str(text).split()))


def _types(module: str, node: ast.expr) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of an annotation's types, and the choices of its ``Literal``, through aliases."""
    if isinstance(node, ast.BinOp):
        (left, choices), (right, more) = _types(module, node.left), _types(module, node.right)
        return left + right, choices + more
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value)
        if name == "Literal":
            values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return ("str",), tuple(str(ast.literal_eval(value)) for value in values)
        return (name,), ()
    found = _find(module, node.id) if isinstance(node, ast.Name) else None
    if found and isinstance(found[1], ast.expr):
        return _types(found[0], found[1])
    return (ast.unparse(node),), ()


def _value(module: str, node: ast.expr | None) -> Any:
    """Return the value of a default, or the expression if only running it would give the value."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        found = _find(module, node.id) if isinstance(node, ast.Name) else None
        return _value(found[0], found[1]) if found and isinstance(found[1], ast.expr) else ast.unparse(node)


def _find(module: str, name: str) -> Definition | None:
    """Return the definition of a name: a class or an expression, in the module or in one that it imports from."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and any(isinstance(x, ast.Name) and x.id == name for x in node.targets):
            return module, node.value
        if isinstance(node, ast.ImportFrom) and _may_be_read(module, node.module):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(str(node.module), alias.name)
    return None


def _may_be_read(module: str, other: str | None) -> bool:
    """Return whether an import is from zoo or from a plugin's own package, not from another library."""
    return other is not None and other.partition(".")[0] in (module.partition(".")[0], "zoo")


def _defined(module: str, name: str) -> Definition:
    if found := _find(module, name):
        return found
    raise LookupError(f"{module} defines no {name}")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    """Return a module's file without importing its packages."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"there is no package {top}")
    for location in spec.submodule_search_locations:
        path = Path(location).joinpath(*rest)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    raise LookupError(f"there is no module {module}")


def _first_line(node: ast.Module | ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]
