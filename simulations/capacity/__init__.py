"""Capacity planning: how many replicas a backend needs, from its hourly traffic."""
