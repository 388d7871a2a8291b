"""One process: put together, run, drained."""
