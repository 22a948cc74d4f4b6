"""`raysys verify`: find the shards, check every sample in them, and copy the intact ones."""
