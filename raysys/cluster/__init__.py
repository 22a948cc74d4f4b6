"""Ray: a session for a stage, parallel tasks, a data source, and stages as jobs on a remote cluster."""
