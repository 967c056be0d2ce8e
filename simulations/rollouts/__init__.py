"""Rollouts in virtual time: how long the production controller takes, and how often it errs."""
