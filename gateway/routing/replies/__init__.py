"""Replies of backends: decoded, relayed within memory limits, and stripped of secrets."""
