"""The life of a model's versions over a registry: champion, challenger, and how they move."""
