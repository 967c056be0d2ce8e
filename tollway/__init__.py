"""Tollway: a cost-aware routing gateway."""
