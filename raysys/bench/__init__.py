"""How fast, beside whom, and how far from the limit: every bench is a file with its cases and conclusions."""
