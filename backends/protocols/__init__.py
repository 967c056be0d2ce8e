"""How each protocol's requests and replies are read."""
