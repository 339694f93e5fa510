"""Replicas and workers: the strategy, how processes meet, what they agree on."""
