"""Decides and learns: no I/O, no clock, no asyncio."""
