"""The job API behind the gateway."""
