"""The live shelf: an encoder that batches, a searcher, and the HTTP gateway before them, on Ray Serve."""
