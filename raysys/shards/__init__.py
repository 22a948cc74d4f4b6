"""The shard format: WebDataset tars, the files beside them, and a reader that addresses samples by number."""
