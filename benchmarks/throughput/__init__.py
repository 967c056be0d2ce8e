"""The parts of the throughput benchmark: contestants, loads and processes."""
