"""Ledger implementations: memory, SQLite and Redis."""
