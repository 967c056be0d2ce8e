"""Decides whether a backend or a request is at fault when a call fails."""
