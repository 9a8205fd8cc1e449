"""Smaller networks inside a nested run: cut, calibrated, timed and measured, without training."""
