"""Asks a model and says what that used; knows nothing about routing."""
