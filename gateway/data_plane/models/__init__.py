"""The models that a key may call, as the clients of each API read them."""
