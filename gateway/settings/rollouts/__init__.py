"""The settings of rollouts."""
