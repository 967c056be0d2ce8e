"""Finds spend that differs from its baseline, and what explains it."""
