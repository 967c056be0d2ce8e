"""Learning from feedback, labels and audits, and the pacing of policies."""
