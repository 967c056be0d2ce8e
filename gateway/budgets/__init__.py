"""Budgets: what each has spent and leased, and reservations against them."""
