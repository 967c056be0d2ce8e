"""Answers from the cache: the arm that gives them, and the driver that finds and keeps them."""
