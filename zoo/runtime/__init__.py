"""PyTorch itself: modes, memory, layouts, CUDA graphs, optimizer state, and what a model costs."""
