"""Latency and accuracy of an exported file, beside its baselines."""
