"""Train several methods under one recipe and set their figures side by side."""

from zoo.comparison.figures import Figures, summarise
from zoo.comparison.plan import Comparison, Contender
from zoo.comparison.table import draw, print_comparison

__all__ = ["Comparison", "Contender", "Figures", "draw", "print_comparison", "summarise"]
