"""The parts of the routing benchmark."""
