"""Measure a trained network: accuracy under attack, condition numbers, a bound on its Lipschitz constant."""

from zoo.backbone.folded import folded
from zoo.certificates.lipschitz import LipschitzBound, lipschitz_bound
from zoo.evaluation.calibration import calibration, calibration_of
from zoo.evaluation.conditioning import condition_numbers
from zoo.evaluation.evaluator import Evaluator, searches
from zoo.evaluation.ood import detection
from zoo.evaluation.outcomes import OUTCOMES, Outcomes, identity
from zoo.evaluation.probing import probe
from zoo.evaluation.report import Report, quick_evaluation
from zoo.evaluation.robustness import evaluate
from zoo.evaluation.sanity import sanity
from zoo.evaluation.shards import Origin, Shard, merge
from zoo.evaluation.spread import Setting, Spread
from zoo.evaluation.sweeps import EPS, QUICK, TIERS, Sweep, choose_sweeps, parse_radii
from zoo.evaluation.table import print_card, print_detection, print_findings, print_points

__all__ = [
    "EPS",
    "OUTCOMES",
    "QUICK",
    "TIERS",
    "Evaluator",
    "LipschitzBound",
    "Origin",
    "Outcomes",
    "Report",
    "Setting",
    "Shard",
    "Spread",
    "Sweep",
    "calibration",
    "calibration_of",
    "choose_sweeps",
    "condition_numbers",
    "detection",
    "evaluate",
    "folded",
    "identity",
    "lipschitz_bound",
    "merge",
    "parse_radii",
    "print_card",
    "print_detection",
    "print_findings",
    "print_points",
    "probe",
    "quick_evaluation",
    "sanity",
    "searches",
]
