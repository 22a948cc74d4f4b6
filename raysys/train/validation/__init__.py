"""Validation during training: metrics of checkpoints, early stopping, neighbour grids."""
