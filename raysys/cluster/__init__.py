"""The cluster: a Ray session for a stage, and stages as jobs on a cluster elsewhere."""
