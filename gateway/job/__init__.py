"""Jobs: remembered when seen, watched until they end."""
