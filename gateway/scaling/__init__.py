"""Scaling: how many replicas of each backend are needed, and why. It recommends; it starts none."""
