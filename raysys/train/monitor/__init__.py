"""Monitoring of a run: capacity, heartbeats, stalls, agreement of the ranks, stop requests."""
