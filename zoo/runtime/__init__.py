"""Helpers for PyTorch itself: modes, memory, layouts, CUDA graphs, optimizer state, and the complexity of models."""
