"""What a server needs to answer requests with an exported file."""
