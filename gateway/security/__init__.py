"""Keys, credentials, addresses and TLS."""
