"""Nearest neighbours: an exact search to trust, FAISS to be fast, and the recall between them."""
