"""Delivery: claim a message, send it to its sink, record what became of it."""
