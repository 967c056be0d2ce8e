"""Devices that backends run on: their price, how busy they are, and who pays for idle time."""
