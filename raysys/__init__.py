"""raysys: from a catalogue of photos and titles to a live similar-looks shelf, on Ray."""

__version__ = "0.1.0"
