"""The routes' own paths: ASGI in, a request for the router, its reply out."""
