"""Features: the part of a request that a policy sees."""
