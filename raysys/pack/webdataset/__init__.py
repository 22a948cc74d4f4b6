"""An existing WebDataset as a catalogue: its tars are indexed by ranged reads and stay where they are."""
