"""Put a run on a hub: round it, measure it, export it, describe it; and check that a hub keeps its word."""
