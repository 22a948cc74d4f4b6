"""The folder of a run: its checkpoints, how they are written, which of them count, and their export."""
