"""How long a file or a network takes on this machine."""
