"""The scripts complete commands, options and values in shells that are here, and are valid in all three."""

import shutil
import subprocess
from pathlib import Path

import pytest
import shtab

from zoo.cli import command_names
from zoo.cli.completion import described
from zoo.methods import METHODS

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script for each shell."""
    folder, parser = tmp_path_factory.mktemp("completion"), described()
    for shell in SHELLS:
        (folder / shell).write_text(shtab.complete(parser, shell), encoding="utf-8")
    return folder


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_valid_and_names_every_command(shell: str, scripts: Path) -> None:
    text = (scripts / shell).read_text(encoding="utf-8")
    assert all(name in text for name in (*command_names(), *METHODS.names(), "cifar10", "vgg16_bn_dense_c10"))
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    done = subprocess.run([shell, "-n", str(scripts / shell)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


CASES = {
    "zoo tr": {"train", "transfer"},
    "zoo train --ep": {"--epochs", "--eps", "--eps-ramp"},
    "zoo train --method ": set(METHODS.names()),
    "zoo train --method.con": {"--method.convolution"},
    "zoo export RUN --target ": {"cpu", "cuda", "generic"},
    "zoo evaluate RUN --dev": {"--device"},
    "zoo predict RUN --qu": {"--quiet"},
    "zoo completion ": set(SHELLS),
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("line", CASES)
def test_bash_completes(line: str, scripts: Path) -> None:
    code = """
    source "$1"; words=($2); [[ $2 == *" " ]] && words+=("")
    COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1)) COMPREPLY=()
    function=$(complete -p zoo | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    $function zoo "${words[-1]}" "${words[-2]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    found = subprocess.check_output(["bash", "-c", code, "bash", str(scripts / "bash"), line], text=True)
    assert {word.strip() for word in found.split()} == CASES[line]


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
@pytest.mark.parametrize("line", CASES)
def test_fish_completes(line: str, scripts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code = f"source {scripts / 'fish'}; complete -C '{line}'"
    found = subprocess.check_output(["fish", "-c", code], text=True)
    assert CASES[line] <= {line.split("\t")[0] for line in found.splitlines()}
