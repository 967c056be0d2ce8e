"""Cost estimation: predicts what a call will cost from the usage of earlier calls."""
