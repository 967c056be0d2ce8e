"""The tables of signals and guards."""
