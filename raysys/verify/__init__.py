"""What `raysys verify` does to a folder of shards: find them, look into each, and copy what is whole."""
