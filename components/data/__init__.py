"""Into the four tables, and what may pass."""
