"""Embeds the catalogue with Ray Data, and projects the vectors to fewer dimensions."""
