"""An engine is chosen by name, and what is wrong is said in one line before anything is started."""

import importlib.util
import socket
import sys
import time

import pytest

from zoo.cli import run as zoo
from zoo.engines import ENGINES, enter, open_engine
from zoo.engines.ray import STARTS
from zoo.errors import UserError

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
RUN = "test_resnet.robust_lowrank50_digits"


@pytest.fixture
def everything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENGINES.get("ray"), "check_installed", lambda: None)


def test_no_engine_is_none() -> None:
    assert open_engine(None, None) is None


@pytest.mark.usefixtures("everything_is_installed")
def test_options_have_their_types() -> None:
    engine = open_engine("ray(threads=2, address=auto)", 3)
    assert engine == ENGINES.get("ray")(workers=3, threads=2, address="auto")


@pytest.mark.usefixtures("everything_is_installed")
@pytest.mark.parametrize(
    ("text", "workers", "message"),
    [
        (None, 2, "--workers is the number of an engine's processes: give --engine"),
        ("rya", 2, "unknown engine 'rya'"),
        ("ray(host=x)", 2, "unknown option of ray 'host'"),
        ("ray(workers=2)", None, "give the number of processes as --workers"),
        ("ray(threads=many)", 2, "threads 'many' is not"),
        ("ray(threads=0)", 2, "threads must be at least 1"),
        ("ray", 0, "--workers must be at least 1, not 0"),
    ],
)
def test_what_is_wrong_is_said(text: str | None, workers: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_engine(text, workers)


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", RUN],
        ["sweep", "--config", "resnet18_dense_cifar10", "--search", "lr=0.1,0.2"],
        ["train", "--arch", "test_resnet"],
    ],
)
def test_an_engine_that_is_not_installed_is_named_with_its_extra(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--engine ray is not installed: pip install 'robust-zoo\[ray\]'"):
        zoo([*command, "--engine", "ray", "--workers", "2"])


@needs_ray
def test_parts_are_cut_by_an_engine_or_by_hand() -> None:
    with pytest.raises(UserError, match="leave --shard, --merge and --compression out"):
        zoo(["evaluate", RUN, "--engine", "ray", "--shard", "1/2"])


@needs_ray
def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:\d+ .*ray start --head"):
            next(open_engine("ray", 2).map(divmod, 7, [2]))
        assert time.monotonic() - started < 60  # Ray's import takes its time on a busy machine


@needs_ray
def test_a_cluster_that_refuses_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    attempts, why = [], ConnectionError("Failed to connect to Ray cluster")

    def refuses(**options) -> None:
        attempts.append(options["address"])
        raise why

    monkeypatch.setattr(ray, "init", refuses)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"Ray cannot start on this machine \(Failed to connect"):
        next(open_engine("ray", 2).map(divmod, 7, [2]))
    assert attempts == ["local"] * STARTS
    with pytest.raises(UserError, match=r"no Ray cluster at auto \(Failed to connect"):
        next(open_engine("ray(address=auto)", 2).map(divmod, 7, [2]))
    why.__cause__ = RuntimeError("ray.exceptions.AuthenticationError: InvalidAuthToken")
    with pytest.raises(UserError, match="the Ray cluster at auto asks for a token: set RAY_AUTH_MODE=token"):
        next(open_engine("ray(address=auto)", 2).map(divmod, 7, [2]))


def test_no_item_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert list(ENGINES.get("ray")(2).map(divmod, 7, [])) == []


def test_a_folder_that_the_machines_do_not_share_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not on .*: the machines need a folder in common"):
        enter(str(tmp_path / "nowhere"))
