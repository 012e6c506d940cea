"""What it takes from a job's change to its receiver, over a durable outbox."""
