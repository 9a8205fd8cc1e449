"""Channels of a network: which are coupled, how many each layer keeps, and removing some."""

from zoo.channels.cut import Widths, build_widths, fit_shapes_, layer_report, prune_, widths
from zoo.channels.graph import Axis, ChannelGraph, Labels
from zoo.channels.tracing import trace_channels

__all__ = [
    "Axis",
    "ChannelGraph",
    "Labels",
    "Widths",
    "build_widths",
    "fit_shapes_",
    "layer_report",
    "prune_",
    "trace_channels",
    "widths",
]
