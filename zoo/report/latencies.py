"""Latency of runs, as `zoo bench` measured it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.runs.provenance import in_threads

BENCH = "bench.json"
"""Name of the file that `zoo bench` writes."""


@dataclass(frozen=True)
class Timing:
    """Time of one exported file in ONNX Runtime; only timings under the same conditions may be compared.

    Attributes:
        conditions: provider, processor, threads and any precision but fp32, in words.
        median_ms: of batch 1, in milliseconds.
        p95_ms: 95th percentile.
        ratio_to_dense: over the time of the dense backbone beside it; None if not measured.
        bytes: size of the file.
    """

    conditions: str
    median_ms: float
    p95_ms: float
    ratio_to_dense: float | None
    bytes: int


def read_timings(paths: Iterable[Path]) -> dict[str, Timing]:
    """Return the timings in files of `zoo bench`, by the SHA-256 of the weights; fp32 wins, then later files.

    Raises:
        UserError: a file is missing or was not written by `zoo bench`.
    """
    found: list[tuple[bool, str, Timing]] = []
    for path in paths:
        try:
            found += _timings(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"no file at {path}: write one with `zoo bench RUN --json {path}`") from None
        except (RecursionError, KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise UserError(f"{path} was not written by `zoo bench`: measure again, or remove it") from None
    # If a run has files in several precisions, the fp32 file counts: its accuracies are those of the card.
    return {sha256: timing for _, sha256, timing in sorted(found, key=lambda x: x[0])}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _timings(result: dict[str, Any]) -> Iterator[tuple[bool, str, Timing]]:
    where = result.get("gpu") if result["device"] == "cuda" else f"{result['cpu']}, {in_threads(result['threads'])}"
    conditions = f"{result['provider']}, {where}"
    for row in result["rows"]:
        precision = row.get("precision", "fp32")
        single = [x for x in row["latency"] if x["batch"] == 1]
        if row.get("weights_sha256") and single:
            yield (
                precision == "fp32",
                _text(row["weights_sha256"]),
                Timing(
                    conditions if precision == "fp32" else f"{conditions}, {precision}",
                    float(single[0]["median_ms"]),
                    float(single[0]["p95_ms"]),
                    single[0].get("ratio_to_dense"),
                    int(row["bytes"]),
                ),
            )
