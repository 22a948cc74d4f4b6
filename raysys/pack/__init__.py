"""From a catalogue to ShardSets: WebDataset tars, a list of their items, and a ledger of refused rows."""
