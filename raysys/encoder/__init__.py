"""Encoders: what turns photos and titles into vectors of one embedding space."""
