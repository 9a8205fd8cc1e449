"""The files of onnxruntime-web, ONNX Runtime for browsers: npm's package at one version, checked and cached."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.errors import UserError
from zoo.files import atomic_folder, cache_folder, sha256, user_path

ONNXRUNTIME_WEB = "1.30.0"
"""Its version."""
SPEC = f"onnxruntime-web@{ONNXRUNTIME_WEB}"
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""The files that run graphs on the CPU of a browser, with their SHA-256: the module to import and what it loads."""
ELSEWHERE = f"where npm is, run `npm pack {SPEC}`, and give the file it writes with --ort-web"


def onnxruntime_web(source: Path | None = None) -> Path:
    """Return a folder with the files of onnxruntime-web: the module ``ort.wasm.min.mjs`` and what it loads.

    Args:
        source: npm's package as a .tgz file, or unpacked in a folder; None: the cache, or npm, whose settings (a
            mirror, a proxy) hold.

    Raises:
        UserError: the source has other files, or there is no npm, or it fails.
    """
    if source is not None and (source := user_path(source)).is_dir():
        return _unpacked(source)
    kept = cache_folder() / SPEC.replace("@", "-")
    if source is None and all((kept / name).is_file() and sha256(kept / name) == FILES[name] for name in FILES):
        return kept
    with TemporaryDirectory() as folder, atomic_folder(kept) as ready:
        _extract(source or _packed_by_npm(Path(folder)), ready)
    return kept


def _unpacked(folder: Path) -> Path:
    """Return the folder of an unpacked package that holds the files."""
    places = [folder, folder / "dist", folder / "package/dist", folder / "onnxruntime-web/dist"]
    found = next((place for place in places if (place / "ort.wasm.min.mjs").is_file()), None)
    if found is None:
        raise UserError(f"{folder} is not onnxruntime-web: it has no dist/ort.wasm.min.mjs; {ELSEWHERE}")
    _check(found, folder)
    return found


def _extract(package: Path, target: Path) -> None:
    if not package.is_file():
        raise UserError(f"no file or folder {package}: {ELSEWHERE}")
    try:
        with tarfile.open(package) as archive:
            for name in FILES:
                content = archive.extractfile(f"package/dist/{name}")
                if content is not None:
                    (target / name).write_bytes(content.read())
    except (tarfile.TarError, EOFError, KeyError, OSError) as error:
        raise UserError(f"{package} is not npm's package {SPEC} ({error}): {ELSEWHERE}") from None
    _check(target, package)


def _check(folder: Path, source: Path) -> None:
    wrong = [name for name, digest in FILES.items() if not (folder / name).is_file() or sha256(folder / name) != digest]
    if wrong:
        raise UserError(f"{source} is not {SPEC}: {', '.join(wrong)} missing or different; {ELSEWHERE}")


def _packed_by_npm(folder: Path) -> Path:
    beside = Path(sys.executable).parent
    npm = shutil.which("npm") or shutil.which("npm", path=str(beside))
    if npm is None:
        raise UserError(
            f"{SPEC} is fetched by npm, which is not installed: `pip install 'robust-zoo[demo]'` brings it; or, "
            f"{ELSEWHERE}"
        )
    command = [npm, "pack", SPEC, "--pack-destination", str(folder), "--loglevel", "error"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    packed = next(folder.glob("*.tgz"), None)
    if done.returncode or packed is None:
        reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise UserError(f"npm cannot fetch {SPEC} ({reason}): {ELSEWHERE}")
    return packed
