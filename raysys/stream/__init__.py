"""From shards to batches: order, strict reading, decoding. Ray Data carries it, `read` alone imports it."""
