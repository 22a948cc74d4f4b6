"""What a run reports while it works: log lines, progress bars, `metrics.jsonl` and Weights & Biases."""
