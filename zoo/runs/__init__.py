"""A training and its results: its recipe, its folder, its weights and its card."""
