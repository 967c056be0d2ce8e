"""Detects spend that deviates from its baseline and attributes the deviation."""
