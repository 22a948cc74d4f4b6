"""What a run reports while it works: log lines, `metrics.jsonl` and Weights & Biases."""
