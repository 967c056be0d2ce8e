"""The HTTP/1.1 server: sockets, limits, and checks of what was sent."""
