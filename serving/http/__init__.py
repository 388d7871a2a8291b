"""The public API over HTTP."""
