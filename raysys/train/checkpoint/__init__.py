"""The folder of a run and its checkpoints: format, saving, registry, and export to an EncoderBundle."""
