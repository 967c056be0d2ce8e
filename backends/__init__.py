"""Calls models and reads what each call used; independent of routing."""
