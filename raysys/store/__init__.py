"""Changes of items after the index was built."""
