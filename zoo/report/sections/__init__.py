"""The sections of a report: one file each, with one function from the runs' figures to a section."""

from collections.abc import Callable, Sequence

from zoo.report.figures import RunFigures
from zoo.report.page import Section
from zoo.report.sections.calibration import calibration
from zoo.report.sections.conditioning import conditioning
from zoo.report.sections.layers import layers
from zoo.report.sections.probes import probes
from zoo.report.sections.provenance import provenance
from zoo.report.sections.robustness import robustness
from zoo.report.sections.sanity import sanity
from zoo.report.sections.summary import summary
from zoo.report.sections.tradeoff import tradeoff
from zoo.report.sections.training import training

SECTIONS: tuple[Callable[[Sequence[RunFigures]], Section], ...] = (
    *(summary, tradeoff, robustness, probes, calibration, sanity),
    *(training, conditioning, layers, provenance),
)
"""In the order of the page."""
