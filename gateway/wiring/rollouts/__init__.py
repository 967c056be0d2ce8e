"""Builds rollouts."""
