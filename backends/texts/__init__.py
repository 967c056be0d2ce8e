"""Reads what models write: signals in texts, and whether they conform to a JSON Schema."""
