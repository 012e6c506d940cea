"""Measurements, never tests: what a request costs, beside the upstream without the gateway."""
