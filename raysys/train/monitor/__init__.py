"""Watching a run: capacity, heartbeats, stalls, stop requests, progress."""
