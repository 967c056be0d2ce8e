"""The production router in a world with virtual time, and replay of journals."""
