"""Regressors: the expected quality or usage of an arm in a context."""
