"""The files of onnxruntime-web are those of one version, wherever they come from."""

import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from zoo.errors import UserError
from zoo.runtimes import onnxruntime_web

NAMES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of three small files, whose digests are the pinned ones."""
    dist = tmp_path / "unpacked/package/dist"
    dist.mkdir(parents=True)
    for name in NAMES:
        (dist / name).write_text(name)
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in NAMES}
    monkeypatch.setattr("zoo.runtimes._onnxruntime_web.FILES", digests)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "unpacked"


def packed(folder: Path, file: Path) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        archive.add(folder / "package", "package")
    return file


@pytest.mark.parametrize("place", ["", "package", "package/dist"])
def test_an_unpacked_package_is_used_in_place(place: str, package: Path) -> None:
    assert onnxruntime_web(package / place) == package / "package/dist"


def test_a_packed_one_is_kept_in_the_cache(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = onnxruntime_web(packed(package, tmp_path / "web.tgz"))
    assert {file.name: file.read_text() for file in found.iterdir()} == {name: name for name in NAMES}
    monkeypatch.setenv("PATH", "")
    assert onnxruntime_web() == found  # asks nobody


def npm(folder: Path, script: str) -> str:
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_npm_fetches_it(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = packed(package, tmp_path / "web.tgz")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", npm(tmp_path / "bin", f'[ "$1" = pack ] && cp {file} "$4"'))
    assert sorted(file.name for file in onnxruntime_web().iterdir()) == sorted(NAMES)


def test_what_is_not_that_version_is_refused(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tgz").write_text("no archive")
    (package / "package/dist" / NAMES[2]).write_text("changed")
    changed = packed(package, tmp_path / "changed.tgz")
    for source, words in (
        (package, f"unpacked is not onnxruntime-web@.*: {NAMES[2]} missing or different"),
        (changed, f"changed.tgz is not onnxruntime-web@.*: {NAMES[2]} missing or different"),
        (tmp_path / "empty", "has no dist/ort.wasm.min.mjs"),
        (tmp_path / "text.tgz", "is not npm's package"),
    ):
        with pytest.raises(UserError, match=words):
            onnxruntime_web(source)
    monkeypatch.setenv("PATH", npm(tmp_path / "bin", "echo 'npm error network unreachable' >&2; exit 1"))
    with pytest.raises(UserError, match=r"npm cannot fetch .*network unreachable.*--ort-web"):
        onnxruntime_web()
    monkeypatch.setattr("shutil.which", lambda *args, **kwargs: None)
    with pytest.raises(UserError, match=r"npm, which is not installed: `pip install 'robust-zoo\[demo\]'`.*--ort-web"):
        onnxruntime_web()
    assert not list(tmp_path.glob("cache/*"))
