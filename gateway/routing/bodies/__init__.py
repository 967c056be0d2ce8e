"""What is held of the bodies of requests and replies, and how large ones are read."""
