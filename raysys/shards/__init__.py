"""The shard format: WebDataset tars, the files beside them, and a reader of numbered samples."""
