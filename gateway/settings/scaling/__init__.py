"""The tables that say how many replicas of a backend may be recommended."""
