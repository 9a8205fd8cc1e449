"""The server's routes: forms as well as bare bodies, health, metrics; and nothing that a request sends ends it."""

import hashlib
import http.client
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

from zoo.serving.serve import NotAnImage, handler


def classify(data: bytes) -> dict:
    """Stand for a model: tell the bytes that arrived."""
    if data.startswith(b"text"):
        raise NotAnImage("text")
    if data.startswith(b"fail"):
        raise RuntimeError("out of memory")
    return {"class": hashlib.sha256(data).hexdigest()}


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(classify, quiet=True))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


NOISE = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
DATA = b"--\r\n--\n\r\r\n\r\n" + NOISE + b"\r\n"
"""Bytes that look like the lines of a form, at both ends."""


@pytest.mark.parametrize("route", ["/", "/predict", "/predict?x=1"])
def test_a_form_carries_the_same_bytes_as_a_body(url: str, route: str) -> None:
    bare = requests.post(url + route, data=DATA, timeout=20)
    form = requests.post(url + route, files={"image": ("photo.jpg", DATA)}, data={"note": "mine"}, timeout=20)
    assert (bare.status_code, form.status_code) == (200, 200)
    assert bare.json() == form.json() == {"class": hashlib.sha256(DATA).hexdigest()}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("how", [["-F", "image=@{}"], ["--data-binary", "@{}"]])
def test_curl_as_the_page_has_it(url: str, how: list[str], tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(DATA)
    command = ["curl", "-s", *(word.format(photo) for word in how), url]
    assert json.loads(subprocess.check_output(command)) == {"class": hashlib.sha256(DATA).hexdigest()}


def test_a_form_without_a_file_or_with_two_is_told_so(url: str) -> None:
    boundary = {"Content-Type": "multipart/form-data"}
    for answer, count in (
        (requests.post(url, files={"note": (None, "text of a field")}, timeout=20), 0),
        (requests.post(url, files=[("a", ("a", DATA)), ("b", ("b", DATA))], timeout=20), 2),
        (requests.post(url, data=DATA, headers=boundary, timeout=20), 0),
    ):
        assert answer.status_code == 400
        assert f"the form has {count} files, send one" in answer.json()["error"]


def test_a_length_of_thousands_of_digits_is_too_many_bytes(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("POST", "/", headers={"Content-Length": "9" * 5000})
    assert connection.getresponse().status == 413
    connection.close()


def test_routes_that_do_not_exist_name_those_that_do(url: str) -> None:
    for answer, told in (
        (requests.get(f"{url}/help", timeout=20), "/health"),
        (requests.post(f"{url}/classify", data=DATA, timeout=20), "/predict"),
    ):
        assert (answer.status_code, told in answer.json()["error"]) == (404, True)


def test_health_is_told_without_the_model(url: str) -> None:
    for route in ("/", "/health"):
        assert requests.get(url + route, timeout=20).json() == {"status": "ok"}
        assert requests.head(url + route, timeout=20).status_code == 200


def test_metrics_count_answers_by_status_and_their_times(url: str) -> None:
    for body, status in ((DATA, 200), (DATA, 200), (b"text", 400), (b"fail", 500)):
        assert requests.post(url, data=body, timeout=20).status_code == status
    answer = requests.get(f"{url}/metrics", timeout=20)
    assert answer.headers["Content-Type"].startswith("text/plain")
    figures = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert {name: figures[name] for name in figures if name.startswith("zoo_requests_total")} == {
        'zoo_requests_total{code="200"}': "2",
        'zoo_requests_total{code="400"}': "1",
        'zoo_requests_total{code="500"}': "1",
    }
    within = [int(count) for name, count in figures.items() if "_bucket" in name]
    assert within == sorted(within)
    assert within[-1] == int(figures["zoo_request_duration_seconds_count"]) == 4
    assert float(figures["zoo_request_duration_seconds_sum"]) > 0
