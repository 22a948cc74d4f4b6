"""Metrics of a training run: throughput, FLOPs, weight norms, and where they are recorded."""
