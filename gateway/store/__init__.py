"""Stores: what must outlive a request, behind protocols with one contract suite."""
