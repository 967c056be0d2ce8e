"""Builds signals, guards and embeddings by backends."""
