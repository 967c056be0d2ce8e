"""The paths below /_tollway: feedback, budgets, decisions, spend and the dashboard."""
