"""The paths below /_tollway: feedback, budgets, decisions, spend, the dashboard."""
