"""Situations of LLM gateways: what clients and model servers do, in exact bytes."""
