"""The HTTP service on Ray Serve: a gateway, an encoder that batches requests, and the index."""
