"""Signals: scores of answers without the truth, and guards of requests."""
