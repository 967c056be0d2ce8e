"""Game days: network faults injected between a gateway and the servers that it calls."""
