"""The gateway's observability: metrics, traces, logs, events and webhooks."""
