"""Settings and policy files: their schema, how they are read, and what is wrong with them."""
