"""What comes back from a backend: decoded, relayed within bounds, and without its secrets."""
