"""The authority on what each budget has spent and leased."""
