"""Validation while training: metrics of checkpoints, early stopping, the retention check, neighbour grids."""
