"""What the rankers are told of a candidate, and what they say of it."""
