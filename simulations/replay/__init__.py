"""Off-policy evaluation: what other policies would have done, from a log."""
