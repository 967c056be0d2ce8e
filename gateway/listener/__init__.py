"""The HTTP/1.1 server: sockets, limits, and validation of requests."""
