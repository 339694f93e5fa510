"""Replicas and workers: the strategy, the rendezvous of processes, what they exchange."""
