"""Past one machine: what a replica holds, what Redis does, and how many of both a load needs."""
