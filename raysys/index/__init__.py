"""Nearest-neighbour search: exact search as the reference, FAISS for speed, and the recall between them."""
