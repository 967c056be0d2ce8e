"""What the gateway shows of itself: metrics, traces, logs, events, webhooks."""
