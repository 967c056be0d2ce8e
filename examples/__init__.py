"""Real model servers and the demo that runs on them."""
