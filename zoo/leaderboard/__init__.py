"""A leaderboard of published models: one self-contained HTML page, its figures as JSON, and RobustBench's format."""

from zoo.leaderboard.robustbench import write_robustbench
from zoo.leaderboard.standings import gather
from zoo.leaderboard.write import write_leaderboard

__all__ = ["gather", "write_leaderboard", "write_robustbench"]
