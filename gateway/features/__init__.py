"""What a policy sees of a request."""
