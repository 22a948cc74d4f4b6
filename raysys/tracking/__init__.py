"""Reports on a run while it works: log lines, progress bars, `metrics.jsonl` and Weights & Biases."""
