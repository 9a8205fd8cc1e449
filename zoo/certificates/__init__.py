"""Proved bounds of a network: Lipschitz and interval bounds, from its exported graph."""
