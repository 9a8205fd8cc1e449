"""Publish a run on a hub: round it, measure it, export it, describe it; and verify published models."""
