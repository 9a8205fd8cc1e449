"""The Pareto front: the points that no other point beats in both respects."""

from collections.abc import Sequence

from zoo.report.chart import Point


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points (cost, gain) that no other point dominates, by ascending cost.

    A point dominates another if it costs no more and gains no less, and is better in one of the two. One of several
    equal points is returned.
    """
    front: list[Point] = []
    for cost, gain in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def steps(front: Sequence[Point], last_cost: float) -> list[Point]:
    """Return the corners of the line below which everything is dominated, drawn up to a cost."""
    line: list[Point] = []
    for cost, gain in front:
        if line:
            line.append((cost, line[-1][1]))
        line.append((cost, gain))
    if line:
        line.append((last_cost, line[-1][1]))
    return line
