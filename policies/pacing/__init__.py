"""Shadow prices: what a dollar must buy so that a budget lasts."""
