"""From a catalogue to shards: WebDataset tars that any tool reads, and a ledger of what was refused."""
