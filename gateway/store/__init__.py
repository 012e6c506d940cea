"""Stores: what must outlive a request, one protocol a subject and one contract suite for each.

Times are epoch seconds. Every method raises `gateway.core.error.StoreUnavailable` when the backend
does not answer; none raises anything else for a condition of the backend.
"""
