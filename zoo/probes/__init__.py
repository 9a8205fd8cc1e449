"""Probes of accuracy beyond attacks on the image: one probe is one file of this package."""

from zoo.plugins import Plugins
from zoo.probes._base import Case, Probe
from zoo.sensitivity.probe_context import ProbeContext

PROBES: Plugins[Probe] = Plugins("probe", "zoo.probes", Probe)

__all__ = ["PROBES", "Case", "Probe", "ProbeContext"]
