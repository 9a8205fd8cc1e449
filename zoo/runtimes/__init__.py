"""Runtimes that deployed files run in: one runtime is one file of this package."""

from zoo.plugins import Plugins
from zoo.runtimes._base import Runner, Runtime, Session, Source
from zoo.runtimes._onnxruntime_web import ONNXRUNTIME_WEB, onnxruntime_web

RUNTIMES: Plugins[Runtime] = Plugins("runtime", "zoo.runtimes", Runtime)
DEFAULT = "onnxruntime"
"""The runtime that files are written for and checked in."""
TIMING = "zoo.runtimes._timing"
"""The program that times a file in a runtime, for `zoo.latency.measure.Program`; see its docstring."""

__all__ = [
    "DEFAULT",
    "ONNXRUNTIME_WEB",
    "RUNTIMES",
    "TIMING",
    "Runner",
    "Runtime",
    "Session",
    "Source",
    "onnxruntime_web",
]
