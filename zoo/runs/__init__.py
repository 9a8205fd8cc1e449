"""A training and what it leaves behind: its recipe, its folder, its weights and its card."""
