"""From shards to batches: order, reading, decoding, augmentation. Only `read` and `watch` import Ray."""
