"""The Python API's functions; import them from `tollway` itself."""
