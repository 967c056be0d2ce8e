"""Actuators: what sets the number of replicas of a backend."""
