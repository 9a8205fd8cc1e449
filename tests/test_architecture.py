"""The plan of the package: few loose modules, no private files across packages, one path per file.

The order of the packages is a contract of import-linter in pyproject.toml, which `.ci/run` checks.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "zoo").rglob("*.py"))


def imports() -> Iterator[tuple[str, str]]:
    """Yield every import inside zoo, wherever it stands: the importing module, and the imported one."""
    for path in SOURCES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoo"):
                for name in node.names:
                    yield module, f"{node.module}.{name.name}"


def test_few_modules_are_loose() -> None:
    loose = [path.name for path in (ROOT / "zoo").glob("*.py")]
    assert len(loose) <= 8, loose


def test_no_package_imports_the_private_files_of_another() -> None:
    """``zoo.attacks._base`` is for `zoo.attacks`, which exports what others may use."""
    foreign = []
    for importer, imported in imports():
        parts = imported.split(".")
        for i, part in enumerate(parts):
            owner = ".".join(parts[:i])
            private = part.startswith("_") and not part.startswith("__") and owner != "zoo"
            if private and not f"{importer}.".startswith(f"{owner}."):
                foreign.append(f"{importer} imports {imported}")
    assert not foreign


def test_every_file_has_one_path() -> None:
    """Links stand at the top, where nothing imports from: a clone without symbolic links must work."""
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True)
    links = [line.split("\t")[1] for line in listed.stdout.splitlines() if line.startswith("120000")]
    assert all("/" not in link for link in links), links


def test_text_files_are_utf_8_on_every_system() -> None:
    """Python's default is the locale's: a card written on Windows would not be read on Linux."""
    of_linux = {"timing.py", "processors.py"}  # which read /proc and /sys
    without = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        if path.name not in of_linux
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in ("read_text", "write_text") or "newline" in {key.arg for key in node.keywords}
        if "encoding" not in {key.arg for key in node.keywords}
    ]
    assert not without


def test_shapes_need_nothing_at_run_time() -> None:
    """Only a type checker imports jaxtyping: the packages with shapes in their types are imported without it."""
    code = (
        "import importlib, pkgutil, sys\n"
        "sys.modules['jaxtyping'] = None\n"  # importing it raises ImportError
        "for name in ('attacks', 'constraints', 'linalg', 'lowrank', 'sensitivity'):\n"
        "    package = importlib.import_module('zoo.' + name)\n"
        "    for m in pkgutil.iter_modules(package.__path__): importlib.import_module(f'zoo.{name}.{m.name}')\n"
        "assert {'zoo.linalg.spectrum', 'zoo.lowrank.layers', 'zoo.attacks.apgd'} <= set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
