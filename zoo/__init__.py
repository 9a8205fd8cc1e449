"""Compressed, adversarially robust image classifiers: train, evaluate, export and time them."""

__version__ = "0.1.0"
