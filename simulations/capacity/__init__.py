"""How many replicas a backend needs, from its hours."""
