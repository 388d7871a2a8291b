"""Fitting the candidate sources: one module a kind, twins of `serving/sources/`."""
