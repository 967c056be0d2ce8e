"""How many calls a backend gets at once, and who waits."""
