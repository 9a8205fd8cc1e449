"""How much a network depends on each part of its weights."""
