"""Builds what follows the life of models: the registry of their versions."""
