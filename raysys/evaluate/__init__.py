"""Proof: encoders re-rank what a shelf showed, with intervals, beside the baselines they must beat."""
