"""Feedback, labels and audits, and how policies are paced."""
