"""A run's folder: may it begin, what it keeps, what was measured of that, and whether it is enough."""
