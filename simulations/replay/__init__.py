"""What other policies would have done, from a log."""
