"""HTTP: listeners, conversion to the gateway's own messages, and the gateway's own routes."""
