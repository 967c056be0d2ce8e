"""Game days: faults on the wire between a gateway and what it calls, made on purpose."""
