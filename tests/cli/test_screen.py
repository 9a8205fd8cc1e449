"""What is shown while a command works: bars on a terminal alone, lines elsewhere, nothing if so asked."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from zoo import cli, screen
from zoo.errors import Interrupted

ESCAPE = "\x1b"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d)(?:;\d+)*m")
TINY = ["--arch", "test_resnet", "--epochs", "2", "--n", "20", "--device", "cpu", "--trainer.limit_train_batches", "2"]


def environment(**more: str) -> dict[str, str]:
    unset = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", screen.QUIET)
    return {name: value for name, value in os.environ.items() if name not in unset} | {"TERM": "xterm"} | more


class Terminal:
    """A terminal that keeps what is written to it."""

    def __init__(self) -> None:
        import pty  # Windows has neither
        import termios

        self._own, self.fd = pty.openpty()
        termios.tcsetwinsize(self.fd, (24, 80))  # a new one has no columns, in which bars show nothing
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while part := os.read(self._own, 4096):
                self._written += part
        except OSError:  # the other end is closed
            return

    def text(self) -> str:
        os.close(self.fd)
        self._reader.join()
        os.close(self._own)
        return self._written.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="reads a pseudo-terminal as Linux has it")
def test_a_training_into_a_file_shows_its_bars_on_the_terminal_alone(tmp_path: Path) -> None:
    """`zoo train > out.txt`: the results are in the file, without an escape code, and NO_COLOR is kept."""
    command = [sys.executable, "-m", "zoo", "train", *TINY, "--out", str(tmp_path / "run")]
    terminal = Terminal()
    with (tmp_path / "out.txt").open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=terminal.fd, env=environment(NO_COLOR="1"))
    shown, out = terminal.text(), (tmp_path / "out.txt").read_text()
    assert done.returncode == 0
    assert "\r" in shown
    assert "Epoch 1" in shown
    assert not COLOUR.search(shown)
    assert "epoch 1/2" not in shown  # the bar says it
    assert ESCAPE not in out
    assert "\r" not in out
    assert f"saved in {tmp_path / 'run'}" in out


def test_a_training_in_a_log_is_a_line_per_epoch(train_tiny, capfd: pytest.CaptureFixture[str]) -> None:
    train_tiny(epochs=2, trainer={"limit_train_batches": 2})
    shown = capfd.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for line in lines:
        assert re.search(r"loss [\d.]+", line)
        assert re.search(r"val_accuracy [\d.]+", line)
        assert re.search(r"\d+ s", line)
    assert "0:00:00 left" in lines[-1]
    assert ESCAPE not in shown.err + shown.out
    assert "\r" not in shown.err + shown.out


def test_quiet_trains_without_a_word(train_tiny, capfd: pytest.CaptureFixture[str]) -> None:
    with screen.quieted():
        train_tiny("dense", trainer={"limit_train_batches": 1})
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_ends_a_training_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    many = ["--epochs", "500"]
    command = [sys.executable, "-m", "zoo", "train", *TINY, *many, "--out", str(tmp_path / "run")]

    def listen() -> None:  # in the background a shell lets it be ignored, which is inherited
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), preexec_fn=listen
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("epoch 1/500: ")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    last = errors.splitlines()[-1]
    assert re.match(r"zoo: interrupted in epoch \d+ of 500: continue with `zoo train --resume .*run`$", last)
    assert "Traceback" not in errors
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (Interrupted("stop"), 130), (Interrupted("stop", 15), 143)]
)
def test_an_interruption_has_the_exit_code_of_its_signal(error: BaseException, code: int, monkeypatch, capsys) -> None:
    def interrupted(argv: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "run", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("argv", [["--quiet", "list"], ["list", "--quiet"], ["list", "--quiet", "--", "--quiet"]])
def test_quiet_stands_anywhere_and_ends_with_the_command(argv: list[str], monkeypatch) -> None:
    monkeypatch.delenv(screen.QUIET, raising=False)
    seen = []
    monkeypatch.setattr(cli, "_dispatch", lambda rest: seen.append((rest, screen.is_quiet())))
    cli.run(argv)
    assert seen == [([word for word in argv[:2] if word != "--quiet"] + argv[2:], True)]
    assert not screen.is_quiet()


def test_stages_are_lines_now_and_then_without_a_terminal(capsys, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    with screen.stages("opening", every=10) as say:
        for second in range(0, 40, 4):
            now[0] = second
            say(f"stage [{second}]")
    assert capsys.readouterr() == ("", "stage [12]\nstage [24]\nstage [36]\n")
    with screen.quieted(), screen.stages("opening", every=0) as say:
        say("stage")
    assert capsys.readouterr() == ("", "")


def test_a_table_that_is_wider_than_the_screen_is_compacted() -> None:
    table = Table("attack", "accuracy", "images")
    table.add_row("autoattack", "69.20%", "1,000")
    for width in (80, 30):
        console = Console(file=io.StringIO(), width=width)
        console.print(screen.compacted(table, console))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert all(word in text for word in ("autoattack", "69.20%", "1,000", "accuracy"))
        assert max(map(len, text.splitlines())) <= width
