"""`gateway demo`: the whole product at work in a terminal, with no setup."""
