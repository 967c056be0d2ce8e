"""Serves traffic: the only package that knows ASGI, ledgers and Prometheus."""
