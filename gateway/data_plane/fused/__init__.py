"""The fused path of ordinary requests."""
