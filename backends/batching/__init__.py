"""Joins calls to one backend into batches."""
