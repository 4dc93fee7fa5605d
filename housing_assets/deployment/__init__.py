"""Bringing a model version into service: targets, the canary's watch, the rollout, and what they share."""
