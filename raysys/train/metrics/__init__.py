"""What a run measures of itself: throughput, FLOPs, weight changes."""
