"""Encoders: photos and titles to vectors of one embedding space."""
