"""Simulations: the production router in virtual time, and off-policy replay of journals."""
