"""A run's figures: how they are taken, where they are kept, and who is told."""
