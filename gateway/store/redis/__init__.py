"""Redis as the store of many replicas: one client, and the stores built on its scripts."""
