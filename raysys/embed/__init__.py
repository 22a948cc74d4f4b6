"""The catalogue as vectors: Ray batch inference over shards, and the projection to fewer dimensions."""
