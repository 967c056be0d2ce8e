"""Regressors: what quality or usage to expect of an arm in a context."""
