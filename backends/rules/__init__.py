"""Rules that answer inside the gateway."""
