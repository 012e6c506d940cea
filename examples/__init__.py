"""Programs that show the gateway at work."""
