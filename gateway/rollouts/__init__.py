"""Rollouts: a new version of a backend takes traffic step by step, judged against the old one."""
