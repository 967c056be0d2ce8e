"""The path of a request: offers, the draw, attempts, fallbacks, and what they cost."""
