"""A download ends in the right file or in a clear error, whatever the server does."""

import base64
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hub_server import FAULTS, IMPATIENT, FaultyServer, make_hub

from zoo.cli import run as zoo
from zoo.errors import UserError
from zoo.hub.cache import fetch, missing
from zoo.hub.download import read_index
from zoo.hub.huggingface import HuggingFaceHub
from zoo.hub.index import LARGEST_INDEX
from zoo.hub.search import find, open_hub
from zoo.hub.web import WebHub

NAME = "test_resnet.x"
SIZES = {"card.json": 300, "model.safetensors": 200_000}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "models").rglob("*") if path.is_file())


def randomised_faults(tmp_path: Path, cache: Path, count: int, seed: int) -> None:
    """Each download meets up to three faults; then nothing but complete, right models may be in the cache."""
    entry = make_hub(tmp_path / "hub", SIZES)
    source = random.Random(seed)
    complete = failed = 0
    for i in range(count):
        faults = source.choices(FAULTS, k=source.randrange(1, 4))
        script = iter(faults)
        server = FaultyServer(tmp_path / "hub", lambda path, script=script: next(script, "none"), seed=i)
        with server.running() as hub:
            try:
                folder = fetch(hub, NAME, entry)
            except UserError:
                failed += 1
                assert not [path for path in files(cache) if path.suffix == ".part"], faults
            else:
                complete += 1
                assert not missing(folder, entry), faults
                assert {path.name for path in folder.iterdir()} == set(SIZES), faults
        for path in files(cache):
            assert path.read_bytes() == (tmp_path / "hub" / NAME / path.name).read_bytes(), faults
            path.unlink()
    assert complete
    assert failed


def test_faults_of_every_kind_end_in_the_right_files_or_an_error(tmp_path: Path, cache: Path) -> None:
    randomised_faults(tmp_path, cache, count=40, seed=0)


@pytest.mark.slow
def test_200_randomised_faults_leave_no_wrong_file(tmp_path: Path, cache: Path) -> None:
    randomised_faults(tmp_path, cache, count=200, seed=1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("corrupted", "SHA-256"),
        ("truncated", "connection lost"),
        ("html", "a web page instead of the file"),
        ("500", "answers 500"),
        ("404", "has no .*404"),
        ("grown", "its index"),
        ("hang", "no answer in time"),
        ("drip", "bytes per second"),
        ("redirect to file", "another scheme is not followed"),
        ("redirect loop", "redirects more than"),
    ],
)
def test_what_cannot_be_had_is_said_with_its_reason(fault: str, words: str, tmp_path: Path, cache: Path) -> None:
    entry = make_hub(tmp_path / "hub", SIZES)
    server = FaultyServer(tmp_path / "hub", lambda path: fault if path.endswith("safetensors") else "none")
    with server.running() as hub, pytest.raises(UserError, match=words):
        fetch(hub, NAME, entry)
    assert [path.name for path in files(cache)] == ["card.json"]


def test_a_server_that_compresses_unasked_is_asked_once(tmp_path: Path, cache: Path) -> None:
    make_hub(tmp_path / "hub", SIZES)
    server = FaultyServer(tmp_path / "hub", lambda path: "gzip")
    with server.running() as hub, pytest.raises(UserError, match=r"sends index\.json as gzip, though .*: turn comp"):
        read_index(hub)
    assert len(server.requests) == 1


def test_a_dropped_connection_is_resumed_where_it_broke(tmp_path: Path, cache: Path) -> None:
    entry = make_hub(tmp_path / "hub", SIZES)
    script = iter(["none", "dropped"])
    server = FaultyServer(tmp_path / "hub", lambda path: next(script, "none"), seed=3)
    with server.running() as hub:
        fetch(hub, NAME, entry)
    ranges = [asked for path, asked in server.requests if path.endswith("safetensors")]
    assert ranges[0] is None
    assert 0 < int(ranges[1].removeprefix("bytes=").rstrip("-")) < SIZES["model.safetensors"]
    assert len(ranges) == 2


def test_what_is_there_is_not_fetched_again_and_what_was_damaged_is(tmp_path: Path, cache: Path) -> None:
    entry = make_hub(tmp_path / "hub", SIZES)
    server = FaultyServer(tmp_path / "hub")
    with server.running() as hub:
        folder = fetch(hub, NAME, entry)
        assert len(server.requests) == 2
        fetch(hub, NAME, entry)
        assert len(server.requests) == 2
        (folder / "card.json").write_bytes(b"x" * 300)
        fetch(hub, NAME, entry)
    assert [path for path, _ in server.requests[2:]] == [f"/{NAME}/card.json"]
    assert not missing(folder, entry)


def test_two_processes_download_a_model_once(tmp_path: Path, cache: Path) -> None:
    make_hub(tmp_path / "hub", SIZES)
    server = FaultyServer(tmp_path / "hub", lambda path: "stall" if path.endswith("safetensors") else "none")
    code = "import sys; from zoo.hub.search import find; print(find(sys.argv[1], sys.argv[2]).folder())"
    with server.running():
        command = [sys.executable, "-c", code, NAME, server.address]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        answers = [process.communicate()[0].strip() for process in both]
    assert answers[0] == answers[1] != ""
    assert [path for path, _ in server.requests].count(f"/{NAME}/model.safetensors") == 1


def test_a_hub_that_is_down_is_named(cache: Path) -> None:
    hub = open_hub("http://127.0.0.1:9")
    hub.patience = type(hub.patience)(attempts=2, delay=0.001, timeout=0.5)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 in 2 attempts: connection refused"):
        read_index(hub)


def test_an_index_without_end_is_not_read(tmp_path: Path) -> None:
    tmp_path.joinpath("index.json").write_bytes(b" " * (LARGEST_INDEX + 1))
    server = FaultyServer(tmp_path)
    with server.running() as hub, pytest.raises(UserError, match="larger than 16 MiB"):
        read_index(hub)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits")
def test_a_disk_that_takes_no_more_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    import resource  # which Windows lacks

    make_hub(tmp_path / "hub", SIZES)
    code = (
        "import sys, resource; from zoo.errors import UserError; from zoo.hub.search import find\n"
        "model = find(sys.argv[1], sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: model.folder()\n"
        "except UserError as error: print(error)\n"
    )
    with FaultyServer(tmp_path / "hub").running() as hub:
        done = subprocess.run([sys.executable, "-c", code, NAME, hub.address], capture_output=True, text=True)
    assert "cannot be written" in done.stdout
    assert "ZOO_CACHE" in done.stdout
    assert [path.name for path in files(cache)] == ["card.json"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50_000


def test_a_cache_that_cannot_be_written_is_read(tmp_path: Path, cache: Path, monkeypatch) -> None:
    entry = make_hub(tmp_path / "hub", SIZES)
    with FaultyServer(tmp_path / "hub").running() as hub:
        folder = fetch(hub, NAME, entry)
        # A folder that nobody can write to, not even root: a file stands where it would be.
        monkeypatch.setenv("ZOO_CACHE", str(folder / "card.json"))
        with pytest.raises(UserError, match=r"cannot be written .*: set ZOO_CACHE"):
            fetch(hub, NAME, entry)
        monkeypatch.setenv("ZOO_CACHE", str(cache))
        (cache / "locks").rename(cache / "elsewhere")
        (cache / "locks").write_text("in the way")  # a complete model needs no lock
        assert fetch(hub, NAME, entry) == folder


def test_a_local_hub_is_used_in_place_and_checked(tmp_path: Path, cache: Path) -> None:
    make_hub(tmp_path / "hub", SIZES)
    found = find(NAME, str(tmp_path / "hub"))
    assert found.folder() == tmp_path / "hub" / NAME
    assert not cache.exists()
    (tmp_path / "hub" / NAME / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(UserError, match="not the file that the index names"):
        found.folder()


def test_a_downloaded_copy_is_mended_and_holds_nothing_that_was_not_checked(tmp_path: Path, cache: Path) -> None:
    entry = make_hub(tmp_path / "hub", SIZES)
    (tmp_path / "hub" / NAME / "config.yaml").write_text("not in the index")
    command = ["download", NAME, "--hub", str(tmp_path / "hub"), "--to", str(tmp_path / "mine")]
    zoo(command)
    copy = tmp_path / "mine" / NAME
    assert {path.name for path in copy.iterdir()} == set(SIZES)
    (copy / "model.safetensors").write_bytes(b"truncated")
    zoo(command)
    assert not missing(copy, entry)
    (copy / "card.json").write_text("another")
    with pytest.raises(UserError, match="is another model"):
        zoo(command)
    assert (copy / "card.json").read_text() == "another"


def test_hubs_are_searched_in_order(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, hub in enumerate(("a", "b")):
        make_hub(tmp_path / hub, SIZES, seed=i)
    both = f"{tmp_path / 'b'},{tmp_path / 'a'}"
    assert find(NAME, both).hub.address == str(tmp_path / "b")
    monkeypatch.setenv("ZOO_HUB", str(tmp_path / "a"))
    assert find(NAME).hub.address == str(tmp_path / "a")
    with pytest.raises(UserError, match=r"did you mean test_resnet\.x"):
        find("test_resnet.xx")
    with pytest.raises(UserError, match=r"nowhere has no index\.json: it is not a hub"):
        find(NAME, str(tmp_path / "nowhere"))


def test_anything_that_fsspec_opens_is_a_hub(tmp_path: Path, cache: Path) -> None:
    entry = make_hub(tmp_path / "hub", SIZES)
    for address in (f"file://{tmp_path / 'hub'}", f"local://{tmp_path / 'hub'}"):
        hub = open_hub(address)
        assert not missing(fetch(hub, NAME, read_index(hub).models[NAME]), entry)


@pytest.mark.parametrize("address", ["nonsense://x", "data://x", "http://[x", "hf://org/a b", "ftp://127.0.0.1:1/x"])
def test_what_is_no_address_of_a_hub_is_said_in_one_line(address: str) -> None:
    def read() -> None:
        hub = open_hub(address)
        hub.patience = IMPATIENT
        read_index(hub)

    with pytest.raises(UserError, match=re.escape(address)):
        read()


@contextmanager
def redirecting(location: str, seen: list[dict[str, str]]) -> Iterator[str]:
    """Serve one redirect for everything that is asked, and note the headers of each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(302)
            self.send_header("Location", location)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class WithToken(WebHub):
    def headers(self) -> dict[str, str]:
        return {"authorization": "Bearer secret"}


def test_a_token_is_sent_to_the_hub_and_to_nobody_it_redirects_to() -> None:
    first: list[dict[str, str]] = []
    second: list[dict[str, str]] = []
    with (
        redirecting("/again", second) as elsewhere,
        redirecting(elsewhere, first) as address,
        pytest.raises(UserError, match="redirects more than"),
    ):
        read_index(WithToken(address, IMPATIENT))
    assert [headers["authorization"] for headers in first] == ["Bearer secret"]
    assert second
    assert not any("authorization" in headers for headers in second)


def test_a_password_in_an_address_is_used_and_never_shown(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []
    with redirecting("file:///etc/passwd", seen) as address:
        hub = open_hub(address.replace("://", "://me:secret@"))
        assert hub.address == address
        with pytest.raises(UserError) as caught:
            read_index(hub)
    assert "secret" not in str(caught.value)
    assert seen[0]["authorization"].startswith("Basic ")


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for this machine that git left."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1\nlogin git\npassword other\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def basic(words: str) -> str:
    return f"Basic {base64.b64encode(words.encode()).decode()}"


@pytest.mark.usefixtures("netrc")
def test_what_the_user_gives_goes_before_credentials_of_the_machine() -> None:
    seen: list[dict[str, str]] = []
    with redirecting("file:///etc/passwd", seen) as address:
        with_password = address.replace("://", "://me%40here:secret@")
        for hub in (WithToken(address, IMPATIENT), open_hub(with_password), open_hub(address)):
            with pytest.raises(UserError, match="another scheme is not followed"):
                read_index(hub)
    wanted = ["Bearer secret", basic("me@here:secret"), basic("git:other")]
    assert [headers["authorization"] for headers in seen] == wanted


@pytest.mark.usefixtures("netrc")
def test_the_token_of_hugging_face_is_sent_whatever_netrc_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    with redirecting("file:///etc/passwd", seen) as address:
        monkeypatch.setattr(HuggingFaceHub, "url", lambda self, path: f"{address}/{path}")
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        with pytest.raises(UserError, match="another scheme is not followed"):
            read_index(open_hub("hf://org/models"))
    assert [headers["authorization"] for headers in seen] == ["Bearer hf_mine"]


def test_a_redirect_to_no_address_is_refused() -> None:
    with (
        redirecting("http://[::1", []) as address,
        pytest.raises(UserError, match="redirects to something that is not"),
    ):
        read_index(open_hub(address))


def test_a_hugging_face_repository_is_fetched_from_its_own_addresses() -> None:
    hub = open_hub("hf://org/models@v1")
    assert hub.url(f"{NAME}/card.json") == f"https://huggingface.co/org/models/resolve/v1/{NAME}/card.json"
    with pytest.raises(UserError, match="hf://ORG/REPO"):
        open_hub("hf://org")


@pytest.mark.parametrize(("half", "requests"), [("right", 1), ("wrong", 2)])
def test_what_a_killed_download_left_is_continued_if_it_is_right(
    half: str, requests: int, tmp_path: Path, cache: Path
) -> None:
    entry = make_hub(tmp_path / "hub", SIZES)
    left = cache / "models" / NAME / entry.version / "model.safetensors.part"
    left.parent.mkdir(parents=True)
    content = (tmp_path / "hub" / NAME / "model.safetensors").read_bytes()
    left.write_bytes(content[:100_000] if half == "right" else b"x" * 100_000)
    server = FaultyServer(tmp_path / "hub")
    with server.running() as hub:
        assert not missing(fetch(hub, NAME, entry), entry)
    asked = [asked for path, asked in server.requests if path.endswith("safetensors")]
    assert asked == ["bytes=100000-", None][:requests]
    assert not left.exists()
