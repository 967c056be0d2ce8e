"""The data plane: serves the routes' paths, from ASGI request to router to reply."""
