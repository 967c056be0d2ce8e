"""The tables of features that come from outside."""
