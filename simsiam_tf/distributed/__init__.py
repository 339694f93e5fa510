"""Replicas and workers: the strategy, the rendezvous of processes, their ports, what they exchange."""
