"""Limits the concurrent calls to a backend, and queues the others."""
