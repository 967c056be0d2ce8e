"""The tables of a model registry and of the models whose versions it names."""
