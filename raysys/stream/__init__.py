"""From shards to batches: order, reading, decoding, augmentation. Only `read` imports Ray."""
