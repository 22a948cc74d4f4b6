"""Fine-tuning: the sigmoid loss over the global batch, on Ray Train with accelerate inside."""
