"""Evaluation of encoders: re-ranking of a log, attribute precision, retrieval, and the report."""
