"""The path of a request: offers, the policy's draw, attempts, fallbacks and their costs."""
