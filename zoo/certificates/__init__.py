"""What is proved of a network: Lipschitz bounds and interval bounds, from its exported graph."""
