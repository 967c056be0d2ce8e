"""The tables of caches."""
