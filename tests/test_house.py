"""The repository keeps its promises: commands in README, CI and Dockerfile agree, and the wheel owns only ``zoo``."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import zoo.methods
from zoo.cli import run as run_command
from zoo.runs.provenance import commit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def set_up_commands() -> tuple[str, str]:
    """The README's two commands: the first lines of its first two shell blocks."""
    blocks = re.findall(r"```bash\n(.*?)\n```", README, flags=re.DOTALL)
    return blocks[0], blocks[1]


def test_set_up_is_two_commands_of_one_line() -> None:
    assert all("\n" not in command and command.startswith("python3 -m venv") for command in set_up_commands())


def test_ci_runs_the_readme_s_test_command() -> None:
    assert set_up_commands()[1] in (ROOT / ".ci/run").read_text().splitlines()


def test_the_training_image_installs_as_the_readme_does() -> None:
    install = set_up_commands()[0].partition(" && .venv/bin/zoo")[0]
    assert f"RUN {install}\n" in DOCKERFILE


def test_the_serving_image_holds_what_the_server_imports() -> None:
    installed = set(re.search(r"RUN pip install --no-cache-dir (.*)", DOCKERFILE)[1].split())
    imports = set(
        re.findall(r"^(?:import|from) (\w+)", (ROOT / "zoo/serving/serve.py").read_text(), flags=re.MULTILINE)
    )
    third_party = {{"PIL": "pillow"}.get(name, name) for name in imports - set(sys.stdlib_module_names)}
    assert third_party == installed
    copied = re.search(r"COPY (\S+) /serve.py", DOCKERFILE)[1]
    assert (ROOT / copied).is_file()
    flags = re.findall(r'"(--[a-z]+)"', DOCKERFILE.partition('serve.py", ')[2])
    text = (ROOT / copied).read_text()
    assert flags
    assert all(f'"{flag}"' in text for flag in flags)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache")

    def skipped(path: str, names: list[str]) -> set[str]:
        return skip(path, names) | ({"runs", "data"} if Path(path) == ROOT else set())

    shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=skipped)
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=folder / "tree", check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


def test_an_installation_owns_only_zoo(wheel: list[str]) -> None:
    assert {name.partition("/")[0] for name in wheel if ".dist-info" not in name} == {"zoo"}


def test_the_wheel_is_complete(wheel: list[str]) -> None:
    for pattern in ("*.py", "templates/*", "configs/*.yaml"):
        found = [path.relative_to(ROOT).as_posix() for path in (ROOT / "zoo").rglob(pattern)]
        assert found
        assert set(found) <= set(wheel)


def test_the_wheel_holds_the_bundled_hub(wheel: list[str]) -> None:
    files = [path for path in (ROOT / "zoo/hub/bundled").rglob("*") if path.is_file() and path.name != ".lock"]
    assert any(path.suffix == ".onnx" for path in files)
    assert {path.relative_to(ROOT).as_posix() for path in files} == {x for x in wheel if "/bundled/" in x}


def test_messages_name_the_distribution() -> None:
    """The package is called zoo, and what pip installs robust-zoo."""
    text = [
        node.value
        for path in (ROOT / "zoo").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    commands = {found for words in text for found in re.findall(r"pip install [^;:)`]*", words)}
    others = {
        "pip install onnxruntime",
        "pip install --upgrade pillow",
    }  # of a machine that only serves; of photographs
    assert commands > others
    assert all("robust-zoo" in command for command in commands - others), commands
    assert not [words for words in text if re.search(r"\bupdate zoo\b", words)]


def test_a_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (zoo.__version__, PROJECT["license"])


def test_supported_versions_are_those_that_are_installed() -> None:
    rows = re.findall(r"^\| ([\w ]+) \| ([\d.]+) \|", (ROOT / "docs/versions.md").read_text(), flags=re.MULTILINE)
    minimums = {re.split(r"[>;\[]", x)[0]: x.partition(">=")[2].partition(";")[0] for x in PROJECT["dependencies"]}
    minimums |= {"python": PROJECT["requires-python"].removeprefix(">=")}
    names = {"PyTorch": "torch", "ONNX Runtime": "onnxruntime"}
    assert len(rows) > 5
    assert dict(rows) == {name: minimums[names.get(name, name.lower())] for name, _ in rows}


def test_python_in_the_documents_is_valid() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"```python\n(.*?)```", document.read_text(), flags=re.DOTALL):
            compile(block, document.name, "exec")


def test_modules_named_in_the_documents_exist() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {(d.name, path) for d in documents for path in re.findall(r"\b(?:zoo|tests)/[\w/]+\.py\b", d.read_text())}
    written_by_the_reader = {("adding_a_method.md", "zoo/methods/soft_lowrank.py")}
    assert len(named) > 50
    assert sorted(n for n in named - written_by_the_reader if not (ROOT / n[1]).is_file()) == []


def test_the_method_in_the_documents_is_one_file(tmp_path: Path, monkeypatch, capsys) -> None:
    """The page on adding a method is followed to the letter: it must train."""
    page = (ROOT / "docs/adding_a_method.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL)[1]
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "soft_lowrank.py").write_text(code)
    monkeypatch.setattr(zoo.methods, "__path__", [*zoo.methods.__path__, str(folder)])
    run_command(["list", "--methods"])
    assert "soft_lowrank" in capsys.readouterr().out
    out, small = str(tmp_path / "run"), ["--arch", "test_resnet", "--epochs", "1", "--n", "30"]
    run_command(["train", *small, "--method", "soft_lowrank", "--method.beta", "0.01", "--out", out])
    tucker = ["--method.convolution", "tucker", "--out", str(tmp_path / "tucker")]  # an option that it inherits
    run_command(["train", *small, "--method", "soft_lowrank", *tucker])
    monkeypatch.delitem(sys.modules, "zoo.methods.soft_lowrank")
    verbs = re.findall(r"^\| `(\w+)(?:\(.*\))?` \|", page, flags=re.MULTILINE)
    assert len(verbs) > 8
    assert all(hasattr(zoo.methods.Method, verb) for verb in verbs), verbs
    assert "beta: 0.01" in (tmp_path / "run/config.yaml").read_text()
    assert "penalty" in (tmp_path / "run/metrics.csv").read_text().splitlines()[0]


def test_the_commit_on_a_card_is_that_of_zoo_and_of_no_repository_around_it(tmp_path: Path) -> None:
    source = tmp_path / ".venv" / "zoo" / "provenance.py"
    source.parent.mkdir(parents=True)
    source.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "a project that uses zoo"]):
        subprocess.run([*git, *words], check=True)
    assert commit(source) is None
    subprocess.run([*git, "add", "-f", str(source)], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "zoo"], check=True)
    assert re.fullmatch(r"[0-9a-f]{40}", str(commit(source)))
