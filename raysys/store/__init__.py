"""The change log of a catalogue: upserts and deletes, durable in a database before they are acknowledged."""
