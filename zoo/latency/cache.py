"""Measured times, kept from one export to the next: they hold for one machine and one version of ONNX Runtime."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from zoo.files import atomic, cache_folder
from zoo.latency.session import provider_name
from zoo.runs.provenance import cpu_name
from zoo.runtime.processors import usable_processors

FORMAT = 3
"""Version, raised when the measurement or the written graphs change: older times are then not read."""


def cpu_features() -> frozenset[str]:
    """Return the processor's instruction sets by Linux's names; empty if the system does not list them."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _gpu() -> str:
    import torch  # slow to import, and needed only here

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "unknown"


class TimeCache:
    """Numbers by name, in one JSON file per set of conditions.

    The file's name is a hash of the conditions, and the file repeats them: processor (name, instruction sets, number
    that this process may use), ONNX Runtime's version, provider and threads. A file that is damaged, or of other
    conditions, counts as empty and is replaced by the next entry. A file is written whole or not at all. If the folder
    is not writable, nothing is kept.

    Args:
        device: that the times are measured on.
        threads: of one operator on the CPU.
        folder: None: ``times`` in `zoo.files.cache_folder`.
        runtime: other than ONNX Runtime, with its version.
    """

    def __init__(
        self, device: Literal["cpu", "cuda"], threads: int, folder: Path | None = None, runtime: str = ""
    ) -> None:
        self.conditions: dict[str, Any] = {
            "format": FORMAT,
            "processor": cpu_name(),
            "instructions": hashlib.sha256(" ".join(sorted(cpu_features())).encode()).hexdigest()[:12],
            "processors": usable_processors(),
            "gpu": _gpu() if device == "cuda" else "",
            "onnxruntime": ort.__version__,
            "provider": provider_name(device),
            "threads": threads,
            **({"runtime": runtime} if runtime else {}),
        }
        key = hashlib.sha256(json.dumps(self.conditions, sort_keys=True).encode()).hexdigest()[:16]
        self.path = (folder or cache_folder() / "times") / f"{key}.json"

    def get(self, name: str, count: int) -> list[float] | None:
        """Return the numbers under a name if their count is right and each is positive, otherwise None."""
        values = self._read().get(name)
        if not isinstance(values, list) or len(values) != count:
            return None
        good = all(isinstance(v, int | float) and math.isfinite(v) and v > 0 for v in values)
        return [float(v) for v in values] if good else None

    def put(self, name: str, values: list[float]) -> None:
        """Store numbers under a name; entries that another process has added meanwhile stay."""
        content = {"conditions": self.conditions, "times": {**self._read(), name: values}}
        try:
            with atomic(self.path) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError:
            return

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            times = content["times"] if content["conditions"] == self.conditions else {}
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            return {}
        return times if isinstance(times, dict) else {}
