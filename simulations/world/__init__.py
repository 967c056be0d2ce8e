"""The production router in virtual time, before simulated servers."""
