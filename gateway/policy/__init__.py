"""Policies: what traffic may do, one each a file, in one fixed order."""
